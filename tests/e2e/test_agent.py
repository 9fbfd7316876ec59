"""The agent flow: capture on an interface, upload that survives, configuration from ZooKeeper."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from agent_flow import Agent, Receiver, ZooKeeper, counted, need_plugins
from millrace import SAMPLE, until
from network import Segment, need
from server_flow import Services

need("ip", "tcpreplay", "tcpdump")
need_plugins("config-zk", "sink-http", "source-http", "source-pcap")

RATE = 5000  # packets a second
LOOPS = 60   # of the sample


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    services = Services(tmp_path_factory.mktemp("services"), "zookeeper")
    yield services
    services.stop()


@pytest.fixture
def zookeeper(ensemble):
    client = ZooKeeper(ensemble.address["ZOOKEEPER"])
    yield client
    client.stop()


@pytest.fixture
def segment():
    with Segment(1) as one:
        yield one


@pytest.fixture
def start_agent(tmp_path, ensemble):
    """Agents end with the test."""
    started = []

    def start(name, **settings):
        started.append(Agent(tmp_path, name, ensemble.address["ZOOKEEPER"], **settings))
        return started[-1]
    yield start
    for agent in started:
        if agent.process.poll() is None:
            agent.kill()


@pytest.fixture
def start_receiver(tmp_path):
    """Receivers end with the test."""
    started = []

    def start(name, port=0):
        started.append(Receiver(tmp_path, name, port))
        return started[-1]
    yield start
    for receiver in started:
        if receiver.process.poll() is None:
            receiver.kill()


class Tcpdump:
    """Writes down what passes an interface, to compare with."""

    def __init__(self, interface: str, path):
        self.process = subprocess.Popen(["tcpdump", "-i", interface, "-w", path, "-B", "16384", "-U"], stderr=subprocess.PIPE,
                                        text=True)
        assert "listening on" in self.process.stderr.readline()

    def stop(self) -> tuple[int, int]:
        """Packets captured, and dropped by the kernel."""
        self.process.send_signal(signal.SIGINT)
        text = self.process.communicate(timeout=30)[1]
        return tuple(int(re.search(rf"(\d+) packets? {what}", text).group(1)) for what in ("captured", "dropped by kernel"))


def replay(segment, loops=LOOPS, rate=RATE):
    return segment.start("tcpreplay", "-q", "-i", segment.far, "--pps", rate, "--loop", loops, SAMPLE)


def child_of(zookeeper, name) -> int:
    return zookeeper.wait_for(name, lambda status: status["pid"] != 0)["pid"]


def test_what_the_agent_captured_is_at_the_receiver(tmp_path, start_receiver, start_agent, zookeeper, segment):
    """Through a change of the configuration and an outage of the receiver, as many packets as tcpdump sees."""
    receiver = start_receiver("first")
    zookeeper.configure("one", interface=segment.interface, server=receiver.url)
    agent = start_agent("one", upload__chunk_age="500ms")
    zookeeper.wait_for("one", lambda status: status["ok"] and status["applied"] == status["seen"] > 0)

    # First no change: nothing is lost at all.
    watch = Tcpdump(segment.interface, tmp_path / "first.pcap")
    replay(segment).wait(120)
    time.sleep(0.5)
    captured, dropped = watch.stop()
    assert dropped == 0, "tcpdump itself loses packets at this rate"
    assert captured > 1000
    status = zookeeper.wait_for("one", lambda status: counted(status, "capture") >= captured, 30)
    assert counted(status, "capture", "kernel-dropped") == 0

    # A change in the middle, then 30 s without a receiver; what the agent has counted must arrive.
    player = replay(segment)
    until(lambda: counted(zookeeper.status("one"), "capture") > captured + 1000, 60, "packets")
    zookeeper.configure("one", interface=segment.interface, filter="ip or ip6", server=receiver.url)
    zookeeper.wait_for("one", lambda status: status["ok"] and status["applied"] == status["seen"])
    until(lambda: counted(zookeeper.status("one"), "capture") > 1000, 60, "packets")
    taken = receiver.stop()
    time.sleep(30 if os.environ.get("MILLRACE_OUTAGE") is None else float(os.environ["MILLRACE_OUTAGE"]))
    player.wait(120)
    receiver = start_receiver("second", receiver.port)
    text = agent.drain()
    sent = sum(int(n) for n in re.findall(r"^capture +0 +(\d+)", text, re.M))
    assert re.findall(r"kernel-dropped (\d+)", text) in ([], ["0"], ["0", "0"]), text
    assert taken + receiver.stop() == sent
    assert not list((tmp_path / "one.spool").glob("*.zst*"))


def test_a_killed_agent_loses_no_more_than_what_was_not_written(tmp_path, start_receiver, start_agent, zookeeper, segment):
    receiver = start_receiver("receiver")
    zookeeper.configure("two", interface=segment.interface, server=receiver.url)
    agent = start_agent("two", upload__flush_every="200ms")
    first = child_of(zookeeper, "two")
    replay(segment, loops=20).wait(120)
    counts = zookeeper.wait_for("two", lambda status: counted(status, "capture") > 10000)
    before = counted(counts, "capture")
    time.sleep(0.5)  # more than flush_every: all of it is in the spool by now
    os.kill(first, signal.SIGKILL)
    second = zookeeper.wait_for("two", lambda status: status["pid"] not in (0, first) and status["restarts"] == 1)["pid"]
    assert second != first
    zookeeper.wait_for("two", lambda status: status["ok"])
    replay(segment, loops=5).wait(120)
    text = agent.drain()
    after = int(re.findall(r"^capture +0 +(\d+)", text, re.M)[-1])
    assert after > 1000
    assert receiver.stop() >= before + after
    assert "signal 9" in text


WRONG = {
    "unknown interface": ('interface = "nosuch0"\nserver = "{url}"', "there is no interface 'nosuch0'"),
    "empty interface": ('interface = ""\nserver = "{url}"', "neither 'file' nor 'interface' is set"),
    "bad filter": ('interface = "{if}"\nfilter = "tcp prot 80"\nserver = "{url}"', "is no BPF filter"),
    "filter that does not fit": ('interface = "{if}"\nfilter = "wlan type mgt"\nserver = "{url}"', "filter"),
    "no server": ('interface = "{if}"', "the config provider gives no value 'server'"),
    "no interface": ('server = "{url}"', "the config provider gives no value 'interface'"),
    "misspelt key": ('interfase = "{if}"\nserver = "{url}"', "did you mean 'interfase'?"),
    "no URL": ('interface = "{if}"\nserver = "nowhere"', "expected http://HOST:PORT"),
    "a scheme that is not HTTP": ('interface = "{if}"\nserver = "ftp://nowhere/x"', "expected http://HOST:PORT"),
    "no TOML": ('interface = = "{if}"', "1:"),
    "a list": ('interface = ["a", "b"]\nserver = "{url}"', "interface"),
}


def test_a_wrong_configuration_leaves_the_capture_alone(tmp_path, start_receiver, start_agent, zookeeper, segment):
    receiver = start_receiver("receiver")
    values = {"{if}": segment.interface, "{url}": receiver.url}

    def filled(text: str) -> str:
        for key, value in values.items():
            text = text.replace(key, value)
        return text
    zookeeper.write("three", filled('interface = "{if}"\nserver = "{url}"'))
    agent = start_agent("three")
    good = zookeeper.wait_for("three", lambda status: status["ok"] and status["applied"] > 0)
    for what, (text, message) in WRONG.items():
        generation = zookeeper.write("three", filled(text))
        status = zookeeper.wait_for("three", lambda status, now=generation: status["seen"] == now and not status["ok"], 30, what)
        assert message in status["error"], (what, status["error"])
        assert status["pid"] == good["pid"] and status["applied"] == good["applied"], what
    before = counted(zookeeper.status("three"), "capture")
    replay(segment, loops=2).wait(60)
    zookeeper.wait_for("three", lambda status: counted(status, "capture") >= before + 1000)
    generation = zookeeper.write("three", filled('interface = "{if}"\nfilter = "udp"\nserver = "{url}"'))
    status = zookeeper.wait_for("three", lambda status: status["applied"] == generation and status["ok"])
    assert status["pid"] != good["pid"] and status["error"] == ""
    agent.drain()
    until(lambda: zookeeper.status("three") is None, 10, "the end of the ephemeral node")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    services = Services(tmp_path_factory.mktemp("three"), "zookeeper1", "zookeeper2", "zookeeper3")
    yield services
    services.stop()


def leader_of(services) -> str:
    """The member that says so (four-letter word srvr)."""
    for name, address in services.address.items():
        host, port = address.rsplit(":", 1)
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"srvr")
            if b"Mode: leader" in connection.makefile("rb").read():
                return name.lower()
    raise AssertionError("the ensemble has no leader")


def test_agents_outlive_their_ensemble(tmp_path, start_receiver, three, segment):
    address = ",".join(three.address.values())
    receiver = start_receiver("receiver")
    client = ZooKeeper(address)
    client.configure("four", interface=segment.interface, server=receiver.url)
    agent = Agent(tmp_path, "four", address)
    try:
        first = client.wait_for("four", lambda status: status["ok"] and status["applied"] > 0)
        leader = leader_of(three)
        three.must("kill", leader)
        replay(segment, loops=2).wait(60)
        client.wait_for("four", lambda status: counted(status, "capture") >= 1000, 90)
        assert client.status("four")["pid"] == first["pid"]
        generation = client.write("four", f'interface = "{segment.interface}"\nserver = "{receiver.url}"\nfilter = "ip"')
        second = client.wait_for("four", lambda status: status["ok"] and status["applied"] == generation, 90)
        three.must("start", leader)

        for name in three.address:
            three.call("kill", name.lower())
        replay(segment, loops=2).wait(60)
        assert os.path.exists(f"/proc/{second['pid']}"), "the capture goes on without ZooKeeper"
        three.must("start", *(name.lower() for name in three.address))
        client.wait_for("four", lambda status: status["pid"] == second["pid"] and counted(status, "capture") >= 1000, 90)
        generation = client.write("four", f'interface = "{segment.interface}"\nserver = "{receiver.url}"\nfilter = "udp"')
        client.wait_for("four", lambda status: status["ok"] and status["applied"] == generation, 90)
        agent.drain()
    finally:
        agent.kill()
        client.stop()
