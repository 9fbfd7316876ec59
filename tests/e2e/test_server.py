"""The server flow on real Redis, RabbitMQ and MariaDB: everything arrives, each once."""
import os
import random
import re
import sqlite3
import time

import pytest
from captures import as_classic, chunks, synthetic
from millrace import SHARED, pipeline, run, until
from server_flow import Process, Services, Upload, need_plugins

CLIENTS = 4
COLUMNS = "LOWER(HEX(session)), packets, bytes, payload_bytes, label"


def standalone(folder, captures: dict, packets=24) -> list[tuple]:
    """The rows that one process gives for the captures, each with its name as the agent."""
    parts = ['[pipeline]\nname = "standalone"\n']
    for i, (name, path) in enumerate(captures.items()):
        parts.append(f'[stage.capture{i}]\nuse = "source-pcap"\nfile = "{path}"\nagent = "{name}"\n'
                     f'[stage.sessions{i}]\nuse = "split-memory"\nfrom = "capture{i}"\npackets = {packets}\n')
    froms = ", ".join(f'"sessions{i}"' for i in range(len(captures)))
    database = folder / "standalone.db"
    parts.append(f'[stage.model]\nuse = "model-torch"\nfrom = [{froms}]\nmodel = "models/ustc-tfc2016-fast.pt"\n'
                 f'[stage.store]\nuse = "sink-sqlite"\nfrom = "model"\npath = "{database}"\n')
    result = run("run", pipeline(folder, *parts), timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT session, packets, bytes, payload_bytes, label FROM sessions").fetchall()
    return sorted(tuple(str(value) for value in row) for row in rows)


class Server:
    """Services, and the processes that a test has started."""

    def __init__(self, folder):
        need_plugins()
        self.folder = folder
        self.services = Services(folder / "services", "redis", "rabbitmq", "mariadb")
        self.processes: list[Process] = []
        self.receivers: list[Process] = []

    def start(self, name, part, **settings) -> Process:
        process = Process(self.folder, name, part, self.services, {key.replace("__", "."): value
                                                                  for key, value in settings.items()})
        self.processes.append(process)
        return process

    def receiver(self, name, **settings) -> Process:
        process = self.start(name, "..queue", **settings)
        process.url = process.wait_for(r"listening on (http://\S+)").group(1)
        self.receivers.append(process)
        return process

    def analyser(self, name, **settings) -> Process:
        return self.start(name, "queue..", **settings)

    def addresses(self):
        return [receiver.url for receiver in self.receivers if receiver.process.poll() is None]

    def rows(self) -> list[tuple]:
        return sorted(self.services.sql(f"SELECT {COLUMNS} FROM sessions"))

    def count(self) -> int:
        return int(self.services.sql("SELECT COUNT(*) FROM sessions")[0][0])

    def end(self):
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()
        self.services.stop()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.end()


def nothing_is_left(server):
    """Redis holds expiring done marks only, and no queue a message."""
    until(lambda: not any(n for name, n in server.services.queues().items() if not name.endswith(".dead")), 60,
          "queues without messages")
    # In Redis itself, because keys are binary. A five-tuple is a list of its state and its session's packets.
    counts = server.services.redis("EVAL", """
        local forever, lists, others = 0, 0, 0
        for _, key in ipairs(redis.call('KEYS', '*')) do
          if redis.call('TTL', key) < 0 then forever = forever + 1
          elseif redis.call('TYPE', key).ok == 'list' and redis.call('LLEN', key) > 1 then lists = lists + 1
          else others = others + 1 end
        end
        return {forever, lists, others}""", "0")
    assert counts[:2] == ["0", "0"], f"keys without expiry, packets of sessions, others: {counts}"


def test_all_captures_in_chunks_by_four_clients_give_the_rows_of_standalone(server, tmp_path):
    files = sorted(path for path in (SHARED / "captures").rglob("*") if re.search(r"\.(p?cap|pcapng)$", path.name))
    if not files:
        pytest.skip(f"no captures in {SHARED}/captures")
    captures = {}
    for path in files:
        classic = tmp_path / "classic" / f"{path.name}.pcap"
        if as_classic(path, classic):
            captures[path.name] = classic
    expected = standalone(tmp_path, captures)
    assert len(expected) > 3000
    for i in range(2):
        server.receiver(f"receiver{i}", queue__delay="20s")
        server.analyser(f"analyser{i}", queue__delay="20s")
    dice = random.Random(3)
    work = [[] for _ in range(CLIENTS)]
    for i, (name, path) in enumerate(captures.items()):
        work[i % CLIENTS].append((name, chunks(path.read_bytes(), dice, 400)))

    class Client(Upload):
        """Posts the captures that are its, one after the other."""

        def __init__(self, share):
            super().__init__("", [], server.addresses)
            self.share = share

        def _run(self):
            for name, bodies in self.share:
                self.agent, self.bodies = name, bodies
                super()._run()
                if self.error:
                    return

    clients = [Client(share).start() for share in work]
    for client in clients:
        client.join()
    until(lambda: server.count() >= len(expected), 90, f"{len(expected)} rows; there are {server.count()}")
    nothing_is_left(server)
    assert server.rows() == expected
    for process in server.processes:
        process.drain()
    assert server.rows() == expected
    for receiver in server.receivers:
        assert re.search(r"uploads-ok [1-9]", receiver.text()), "it had no part in this"


PACKETS = int(os.environ.get("MILLRACE_FAULT_PACKETS", "200000"))


@pytest.fixture
def traffic(tmp_path):
    """Four agents' captures and the rows that they must give."""
    captures = {}
    for i in range(CLIENTS):
        path = tmp_path / f"agent{i}.pcap"
        path.write_bytes(synthetic(PACKETS // CLIENTS, PACKETS // CLIENTS // 14, random.Random(i)))
        captures[f"agent{i}"] = path
    return captures, standalone(tmp_path, captures)


def kill_an_analyser(server):
    server.processes[1].kill()
    server.analyser("analyser-again", queue__delay="15s")


def kill_a_receiver(server):
    server.receivers[0].kill()
    server.receiver("receiver-again", queue__delay="15s")


def restart(*names):
    def fault(server):
        for name in names:
            server.services.must("kill", name)
            server.services.must("start", name)
    return fault


def stop_mariadb_for_30_s(server):
    server.services.must("stop", "mariadb")
    time.sleep(30)  # the fault itself
    server.services.must("start", "mariadb")


def poison(server):
    for body in ("no tickets", "MRT"):
        server.services.must("rabbitmqctl", "eval", 'rabbit_basic:publish(rabbit_misc:r(<<"/">>, exchange, <<>>), '
                             f'<<"millrace">>, [], <<"{body}">>).')
    until(lambda: server.services.queues().get("millrace.dead") == 2, 60, "two dead letters")


FAULTS = {"kill -9 an analyser": kill_an_analyser, "kill -9 a receiver": kill_a_receiver,
          "restart redis": restart("redis"), "restart rabbitmq": restart("rabbitmq"),
          "restart mariadb": restart("mariadb"), "stop mariadb for 30 s": stop_mariadb_for_30_s,
          "a poisoned message": poison}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_session_is_stored_once_through(server, traffic, fault):
    captures, expected = traffic
    for i in range(2):
        server.receiver(f"receiver{i}", queue__delay="15s")
        server.analyser(f"analyser{i}", queue__delay="15s")
    clients = [Upload(name, chunks(path.read_bytes(), random.Random(name), 2000), server.addresses).start()
               for name, path in captures.items()]
    until(lambda: sum(client.done for client in clients) * 4 > sum(len(client.bodies) for client in clients), 120,
          "a quarter of the uploads")
    FAULTS[fault](server)
    for client in clients:
        client.join()
    until(lambda: server.count() >= len(expected), 150, f"{len(expected)} rows; there are {server.count()}")
    nothing_is_left(server)
    assert server.rows() == expected
    for process in server.processes:
        if process.process.poll() is None:
            process.drain()
