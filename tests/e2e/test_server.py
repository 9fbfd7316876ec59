"""The server flow on real Redis, RabbitMQ and MariaDB (or MySQL): everything arrives, each once."""
import os
import random
import re
import sqlite3
import time

import pytest
from captures import as_classic, chunks, records, synthetic
from millrace import SHARED, pipeline, run, until
from server_flow import DATABASE, Process, Server, Upload, need_plugins

CLIENTS = 4


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


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.end()


def nothing_is_left(server):
    """Redis holds expiring done marks and the record of the settings only, and no queue a message."""
    until(lambda: not any(n for name, n in server.services.queues().items() if not name.endswith(".dead")), 60,
          "queues without messages")
    # In Redis itself, because keys are binary. A five-tuple is a list of its state and its session's packets.
    counts = server.services.redis("EVAL", """
        local forever, lists, others = 0, 0, 0
        for _, key in ipairs(redis.call('KEYS', '*')) do
          if key == 'millrace:meta' or key == 'millrace:prefixes' then others = others + 1
          elseif redis.call('TTL', key) < 0 then forever = forever + 1
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
# Longer than an upload stands still: a session whose packets come later than that has ended before.
DELAY = "45s"


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """Four agents' captures and the rows that they must give."""
    need_plugins()
    folder = tmp_path_factory.mktemp("traffic")
    captures = {}
    for i in range(CLIENTS):
        path = folder / f"agent{i}.pcap"
        path.write_bytes(synthetic(PACKETS // CLIENTS, PACKETS // CLIENTS // 14, random.Random(i)))
        captures[f"agent{i}"] = path
    return captures, standalone(folder, captures)


def counted(processes: list[Process], stage: str, name: str) -> int:
    """The sum over those that run."""
    return sum(process.counted(stage, name) for process in processes if process.process.poll() is None)


def release(clients: list[Upload]):
    """The uploads that stand still go on."""
    for client in clients:
        client.go_on.set()


# A fault: it finds every upload in the middle of a chunk, lets it go on, and returns when what the fault has made
# necessary is counted.

def kill_an_analyser(server, clients):
    victim, other = server.analysers
    # What is claimed from now on cannot be stored, so that the victim has sessions under way.
    server.services.must("pause", DATABASE)
    before = victim.counted("claim", "out")
    release(clients)
    until(lambda: victim.counted("claim", "out") > before, 120, "sessions that the victim has claimed")
    victim.kill()
    server.analyser("analyser-again", queue__delay=DELAY)
    server.services.must("resume", DATABASE)
    until(lambda: counted(server.analysers, "claim", "come-back") > 0, 60, f"{other.log}: tickets of the victim")


def kill_a_receiver(server, clients):
    victim = next(receiver for receiver in server.receivers if receiver.url == clients[0].address)
    victim.kill()
    release(clients)
    until(lambda: clients[0].retries > 0, 60, "the client that posts its chunk again")
    server.receiver("receiver-again", queue__delay=DELAY)


def restart_redis(server, clients):
    server.services.must("kill", "redis")
    release(clients)
    server.services.must("start", "redis")
    until(lambda: all([process.counted("sessions", "reconnects") > 0 for process in server.receivers] +
                      [process.counted("claim", "reconnects") > 0 for process in server.analysers]), 120,
          "four processes that are connected again")


def restart_rabbitmq(server, clients):
    # While it is frozen it confirms nothing of what it is sent.
    server.services.must("pause", "rabbitmq")
    release(clients)
    until(lambda: counted(server.receivers, "queue.in", "messages") > counted(server.receivers, "queue.in", "confirmed"), 60,
          "messages that are not confirmed")
    server.services.must("kill", "rabbitmq")
    server.services.must("start", "rabbitmq")
    until(lambda: counted(server.receivers, "queue.in", "republished") > 0, 60, "messages published again")
    until(lambda: all([process.counted("queue.in", "reconnects") > 0 for process in server.receivers] +
                      [process.counted("queue.out", "reconnects") > 0 for process in server.analysers]), 60,
          "four processes that are connected again")


def restart_database(server, clients):
    server.services.must("kill", DATABASE)
    release(clients)
    server.services.must("start", DATABASE)
    until(lambda: counted(server.analysers, "store", "reconnected") > 0, 120, "an analyser that is connected again")


def stop_database_for_30_s(server, clients):
    server.services.must("stop", DATABASE)
    release(clients)
    time.sleep(30)  # the fault itself
    server.services.must("start", DATABASE)
    until(lambda: counted(server.analysers, "store", "reconnected") > 0, 120, "an analyser that is connected again")


def poison(server, clients):
    for body in ("no tickets", "MRT"):
        server.services.must("rabbitmqctl", "eval", 'rabbit_basic:publish(rabbit_misc:r(<<"/">>, exchange, <<>>), '
                             f'<<"millrace">>, [], <<"{body}">>).')
    release(clients)
    until(lambda: counted(server.analysers, "queue.out", "dead") == 2, 60, "two messages that cannot be read")
    until(lambda: server.services.queues().get("millrace.dead") == 2, 60, "two dead letters")


FAULTS = {"kill -9 an analyser": kill_an_analyser, "kill -9 a receiver": kill_a_receiver, "restart redis": restart_redis,
          "restart rabbitmq": restart_rabbitmq, "restart the database": restart_database,
          "stop the database for 30 s": stop_database_for_30_s, "a poisoned message": poison}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_session_is_stored_once_through(server, traffic, fault):
    captures, expected = traffic
    for i in range(2):
        # However slow the machine is: uploads may stand still, and a broker that is frozen is not given up.
        server.receiver(f"receiver{i}", queue__delay=DELAY, receive__body_timeout="5min", queue__heartbeat="5min")
        server.analyser(f"analyser{i}", queue__delay=DELAY, queue__heartbeat="5min")
    clients = []
    for name, path in captures.items():
        bodies = chunks(path.read_bytes(), random.Random(name), 2000)
        clients.append(Upload(name, bodies, server.addresses, 300, hold_at=len(bodies) // 2).start())
    until(lambda: all(client.held.is_set() or client.error for client in clients), 120, "half of the uploads")
    until(lambda: server.count() > 0, 120, "first rows")
    assert server.count() < len(expected)
    left = sum(len(records(body)) for client in clients for body in client.bodies[client.done:])
    assert PACKETS // 4 < left < PACKETS
    FAULTS[fault](server, clients)
    for client in clients:
        client.join()
    until(lambda: server.count() >= len(expected), 240, f"{len(expected)} rows; there are {server.count()}")
    nothing_is_left(server)
    assert server.rows() == expected
    for process in server.processes:
        if process.process.poll() is None:
            process.drain()
