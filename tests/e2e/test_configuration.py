"""From an SQL UPDATE to what an agent captures: the whole of both flows with the real servers."""
import http.client
import itertools
import statistics
import subprocess
import threading
import time
import tomllib

import pytest
from agent_flow import Agent, ZooKeeper, counted, need_plugins
from millrace import SOURCE, Running, until
from name_server import NameServer
from network import Segment, need
from server_flow import DATABASE, Process, Services

need("ip", "curl")
need_plugins("config-zk", "source-canal", "sink-http", "source-http", "split-redis", "queue-rabbit", "sink-mysql", "model-torch")

AGENTS = ("red", "green", "blue")
CHANGES = 20


class Site:
    """Three agents on segments of their own, one receiver, one analyser, and the way of the configuration."""

    def __init__(self, folder):
        self.folder = folder
        self.services = Services(folder / "services", "zookeeper1", "zookeeper2", "zookeeper3", "kafka", "canal", DATABASE,
                                 "redis", "rabbitmq")
        self.address = self.services.address
        self.ensemble = ",".join(self.address[f"ZOOKEEPER{n}"] for n in (1, 2, 3))
        self.segments, self.agents = {}, {}
        self.zookeeper = None

    def start(self):
        server = Process(self.folder, "server", "", self.services, {"sessions.delay": "2s", "queue.delay": "2s"})
        self.server = server
        url = server.wait_for(r"listening on (http://\S+)").group(1)
        self.services.sql((SOURCE / "pipelines/agent_config.sql").read_text(encoding="utf-8"))
        self.config = Running(self.folder / "config.log", SOURCE / "pipelines/config.toml",
                              "--var", f"KAFKA={self.address['KAFKA']}", "--var", f"TOPIC={self.topic()}",
                              "--var", f"ZOOKEEPER={self.ensemble}", "--var", f"MYSQL={self.services.database}")
        self.zookeeper = ZooKeeper(self.ensemble)
        for number, name in enumerate(AGENTS, 1):
            self.segments[name] = Segment(number)
            self.services.sql(f"INSERT INTO agent_config (agent, interface, server) VALUES "
                              f"('{name}', '{self.segments[name].interface}', '{url}')")
            self.agents[name] = Agent(self.folder, name, self.ensemble, upload__chunk_age="200ms")
        for name in AGENTS:
            self.zookeeper.wait_for(name, lambda status: status["ok"] and status["applied"] > 0, 90, f"agent {name}")
        return self

    def topic(self) -> str:
        return self.address.get("CANAL", "millrace-config").rsplit("/", 1)[-1]

    def set_filter(self, agent: str, text: str):
        """Returns when the agent captures with it."""
        self.services.sql(f"UPDATE agent_config SET filter = '{text}' WHERE agent = '{agent}'")
        node = f"/millrace/agents/{agent}"
        until(lambda: f'"{text}"' in self.zookeeper.client.get(node)[0].decode(), 30, f"filter {text} in {node}")
        generation = self.zookeeper.client.exists(node).mzxid
        self.zookeeper.wait_for(agent, lambda status: status["applied"] == generation and status["ok"])

    def stop(self):
        for running in (*self.agents.values(), *(getattr(self, name, None) for name in ("config", "server"))):
            if running is not None and running.process.poll() is None:
                running.kill()
        if self.zookeeper is not None:
            self.zookeeper.stop()
        for segment in self.segments.values():
            segment.__exit__()
        self.services.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    one = Site(tmp_path_factory.mktemp("site"))
    try:
        yield one.start()
    finally:
        one.stop()


LABELS = {*tomllib.loads((SOURCE / "models/ustc-tfc2016-fast.toml").read_text(encoding="utf-8"))["labels"], "unknown"}


def verdicts(site, agent: str, protocol: int, server: str, port: int, least: int) -> list[tuple[str, ...]]:
    """(packets, label, confidence, model, model version) of the agent's sessions with payload with the server."""
    where = f"payload_bytes > 0 AND agent = '{agent}' AND protocol = {protocol} AND dst = INET6_ATON('{server}') AND dst_port = {port}"

    def rows():
        return site.services.sql(f"SELECT packets, label, confidence, model, model_version FROM sessions WHERE {where}")
    until(lambda: len(rows()) >= least, 60, f"{least} sessions of {agent} with {server}:{port}")
    return rows()


def assert_classified(rows):
    for _, label, confidence, model, version in rows:
        assert label in LABELS and 0 < float(confidence) <= 1
        assert (model, version) == ("ustc-tfc2016-fast", "1")


def test_tcp_of_real_clients_ends_as_rows(site):
    for name in AGENTS:
        site.set_filter(name, "tcp or udp")
        segment = site.segments[name]
        segment.start("/usr/bin/python3", "-m", "http.server", "8000", "--bind", segment.there, "--directory", SOURCE / "docs")
        until(lambda one=segment: subprocess.run(["curl", "-sf", f"http://{one.there}:8000/"], capture_output=True,
                                                 check=False).returncode == 0, 30, "an HTTP server")
        for _ in range(5):
            connection = http.client.HTTPConnection(segment.there, 8000, timeout=10)
            connection.request("GET", "/formats.md")
            assert connection.getresponse().read()
            connection.close()
    for name in AGENTS:
        assert_classified(verdicts(site, name, 6, site.segments[name].there, 8000, 6))
    # Each agent has seen its own segment alone.
    for name, other in itertools.permutations(AGENTS, 2):
        there = site.segments[other].there
        assert site.services.sql(
            f"SELECT COUNT(*) FROM sessions WHERE agent = '{name}' AND dst = INET6_ATON('{there}')")[0][0] == "0"


def test_udp_of_real_resolvers_ends_as_rows(site):
    """The system's resolver in the namespace asks a name server on this side."""
    for name in AGENTS:
        site.set_filter(name, "tcp or udp")
        segment = site.segments[name]
        with NameServer(segment.here, "millrace.test", "192.0.2.7"), segment.resolver(segment.here):
            for _ in range(5):
                found = segment.run("getent", "ahostsv4", "millrace.test").stdout
                assert found.split()[0] == "192.0.2.7", found
    for name in AGENTS:
        rows = verdicts(site, name, 17, site.segments[name].here, 53, 5)
        assert [row[0] for row in rows] == ["2"] * 5, "a question and its answer"
        assert_classified(rows)


class Hops:
    """When a change passes which place, in ms after the UPDATE."""

    def __init__(self, site, agent):
        self.site, self.agent, self.times = site, agent, {}
        self.done = threading.Event()
        self.node = site.zookeeper.client.exists(f"/millrace/agents/{agent}").mzxid

    def watch_node(self):
        while not self.done.is_set():
            stat = self.site.zookeeper.client.exists(f"/millrace/agents/{self.agent}")
            if stat.mzxid != self.node:
                self.times["node"] = time.monotonic()
                return
            time.sleep(0.002)


def test_an_update_changes_the_capture_within_a_second(site, capsys):
    agent, others = AGENTS[0], AGENTS[1:]
    before = {name: site.zookeeper.status(name) for name in others}
    taken = []
    for number in range(CHANGES):
        hops = Hops(site, agent)
        watcher = threading.Thread(target=hops.watch_node)
        watcher.start()
        applied = site.zookeeper.status(agent)["applied"]
        begin = time.monotonic()
        site.services.sql(f"UPDATE agent_config SET filter = '{'udp' if number % 2 == 0 else 'tcp or udp'}' WHERE agent = '{agent}'")
        committed = time.monotonic()
        until(lambda: (status := site.zookeeper.status(agent)) and status["applied"] > applied and status["ok"], 30, "the change")
        end = time.monotonic()
        hops.done.set()
        watcher.join()
        taken.append((committed - begin, hops.times["node"] - committed, end - hops.times["node"], end - begin))
    columns = [statistics.median(column) * 1000 for column in zip(*taken)]
    with capsys.disabled():
        print(f"\nSQL to capture over {CHANGES} changes, median ms: UPDATE {columns[0]:.0f}, to the node {columns[1]:.0f}, "
              f"from the node to the new capture {columns[2]:.0f}, all {columns[3]:.0f}")
    for name in others:
        status = site.zookeeper.status(name)
        assert (status["pid"], status["applied"]) == (before[name]["pid"], before[name]["applied"])


def test_the_filter_is_what_the_row_says(site):
    """After the last change: UDP is captured, and with 'udp' TCP is not."""
    agent = AGENTS[0]
    site.set_filter(agent, "udp port 4711")
    segment = site.segments[agent]
    subprocess.run(["curl", "-s", "-m", "2", f"http://{segment.there}:8000/"], capture_output=True, check=False)
    segment.run("/usr/bin/python3", "-c", "import socket\nfor i in range(10):\n"
                f"    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{segment.here}', 4711))")
    status = site.zookeeper.wait_for(agent, lambda status: counted(status, "capture") >= 10, 30)
    assert counted(status, "capture") == 10
