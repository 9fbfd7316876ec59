"""A backend is swapped by its `use` line: the shipped server file runs with each, and each time the rows are those that
the standalone file gives for the same capture."""
from __future__ import annotations

import json
import pathlib
import re
import shutil
import sqlite3
import subprocess

import flask_service
import pytest
from millrace import BUILD, SAMPLE, SOURCE, pipeline, run, until
from server_flow import DATABASE, DELAYING, SERVER, Process, Services, Upload, need_plugins

need_plugins()

NOBODY = {"REDIS": "redis://127.0.0.1:1", "RABBITMQ": "amqp://127.0.0.1:1"}
MODEL = "models/ustc-tfc2016-fast.pt"


class Backends:
    """The servers that a case needs, each started when it is first asked for."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.started: dict[str, Services] = {}
        self.model: flask_service.Service | None = None

    def server(self, name: str, *options: str) -> Services:
        key = "-".join([name, *options])
        if key not in self.started:
            folder = self.folder / str(len(self.started))
            folder.mkdir()
            self.started[key] = Services(folder, name, *options)
        return self.started[key]

    def service(self) -> flask_service.Service:
        if flask_service.missing():
            pytest.skip(f"not installed: {', '.join(flask_service.missing())}")
        if self.model is None:
            self.model = flask_service.Service(self.folder, SOURCE / MODEL)
        return self.model

    def stop(self):
        for services in self.started.values():
            services.stop()
        if self.model:
            self.model.stop()


class Case:
    """One version of the server file: its use lines, what else is set, and where the rows are then."""

    def __init__(self, folder: pathlib.Path, backends: Backends):
        self.folder, self.backends = folder, backends
        self.address = dict(NOBODY)
        self.database = "mysql://127.0.0.1:1/none"
        self.variables: dict[str, str] = {}
        self.text = SERVER.read_text(encoding="utf-8")
        self.settings = {"sessions.delay": "1s", "queue.delay": "1s"}
        self.rows = None

    def use(self, old: str, new: str):
        self.text, count = re.subn(rf'^(use +)= "{re.escape(old)}"', rf'\1= "{new}"', self.text, flags=re.M)
        assert count == 1, f"no use line of {old}"
        plugin = new.split(".")[0]
        if not (BUILD / f"lib/millrace/plugins/{plugin}.so").exists():
            pytest.skip(f"not built, a library is not installed: {plugin}")

    def redis_rabbit(self, *options: str):
        self.address["REDIS"] = self.backends.server("redis").address["REDIS"]
        self.address["RABBITMQ"] = self.backends.server("rabbitmq", *options).address["RABBITMQ"]
        self.backends.server("redis").redis("FLUSHALL")  # the same sessions would be known to be done

    def redis_rabbit_plugin(self):
        self.redis_rabbit(*DELAYING)
        self.settings["queue.delay_by"] = "x-delayed-message"

    def memory(self):
        self.use("split-redis", "split-memory.tickets")
        self.use("queue-rabbit", "queue-memory")
        self.use("split-redis.claim", "split-memory.claim")

    def sink_mysql(self):
        services = self.backends.server(DATABASE)
        services.sql("DROP VIEW IF EXISTS sessions_readable")
        services.sql("DROP TABLE IF EXISTS sessions")
        self.database = services.database
        self.rows = lambda: services.sql("SELECT LOWER(HEX(session)), agent, epoch, packets, label FROM sessions")

    def sink_postgres(self):
        self.use("sink-mysql", "sink-postgres")
        services = self.backends.server("postgres")
        self.variables["POSTGRES"] = services.address["POSTGRES"]
        services.psql("DROP TABLE IF EXISTS sessions CASCADE")
        self.rows = lambda: services.psql(
            "SELECT replace(session::text, '-', ''), agent, epoch, packets, label FROM sessions")

    def sink_sqlite(self):
        self.use("sink-mysql", "sink-sqlite")
        database = self.folder / "swapped.db"
        self.variables["DATABASE"] = str(database)

        def rows():
            with sqlite3.connect(database) as connection:
                return connection.execute("SELECT session, agent, epoch, packets, label FROM sessions").fetchall()
        self.rows = rows

    def sink_file(self):
        self.use("sink-mysql", "sink-file")
        out = self.folder / "swapped.jsonl"
        self.variables["OUT"] = str(out)
        self.rows = lambda: [] if not out.exists() else self.of_json(out.read_text(encoding="utf-8").splitlines())

    def sink_kafka(self):
        self.use("sink-mysql", "sink-kafka")
        if not shutil.which("kcat"):
            pytest.skip("kcat is not installed (package kcat)")
        brokers = self.backends.server("kafka").address["KAFKA"]
        topic = self.folder.name
        self.variables.update(KAFKA=brokers, TOPIC=topic)

        def rows():
            done = subprocess.run(["kcat", "-C", "-b", brokers, "-t", topic, "-o", "beginning", "-e", "-q"],
                                  capture_output=True, text=True, check=False, timeout=60)
            return self.of_json(done.stdout.splitlines()) if done.returncode == 0 else []
        self.rows = rows

    @staticmethod
    def of_json(lines: list[str]) -> list[tuple]:
        verdicts = map(json.loads, lines)
        return [tuple(verdict[name] for name in ("session", "agent", "epoch", "packets", "label")) for verdict in verdicts]

    def model_torch(self):
        pass

    def model_http(self):
        self.use("model-torch", "model-http")
        self.variables["MODEL_URL"] = self.backends.service().url


@pytest.fixture(scope="module", name="backends")
def backends_fixture(tmp_path_factory):
    made = Backends(tmp_path_factory.mktemp("backends"))
    yield made
    made.stop()


@pytest.fixture(scope="module", name="expected")
def expected_fixture(tmp_path_factory):
    database = tmp_path_factory.mktemp("expected") / "sessions.db"
    result = run("run", "pipelines/standalone.toml", "--var", f"CAPTURE={SAMPLE}", "--var", f"DATABASE={database}",
                 "--set", "sessions.delay=1s", "--set", "capture.agent=one", "--set", "model.min_confidence=0.0")
    assert result.returncode == 0, result.stderr
    with sqlite3.connect(database) as connection:
        rows = sorted(connection.execute("SELECT session, agent, epoch, packets, label FROM sessions"))
    assert len({row[-1] for row in rows}) > 3
    assert {row[1] for row in rows} == {"one"}
    return rows


SINKS = ("sink_mysql", "sink_postgres", "sink_sqlite", "sink_file", "sink_kafka")
# Every sink with both stores, and with both models; the model behind a service with both stores; RabbitMQ also with its
# delayed-message plugin.
CASES = [("model_torch", sink, store) for sink in SINKS for store in ("memory", "redis_rabbit")]
CASES += [("model_http", sink, "memory") for sink in SINKS] + [("model_http", "sink_mysql", "redis_rabbit")]
CASES += [("model_torch", "sink_mysql", "redis_rabbit_plugin")]


@pytest.mark.parametrize("model, sink, store", CASES)
def test_the_server_file_gives_the_same_rows(model, sink, store, backends, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    case = Case(tmp_path, backends)
    for swap in (store, sink, model):
        getattr(case, swap)()
    for name, value in case.variables.items():
        monkeypatch.setenv(name, value)
    case.settings["model.min_confidence"] = "0.0"  # no class of the sample is sure: so that there are labels to compare
    server = Process(tmp_path, "server", "", case, case.settings, pipeline(tmp_path, case.text))
    url = server.wait_for(r"listening on (http://\S+)").group(1)
    Upload("one", [SAMPLE.read_bytes()], lambda: [url]).start().join()

    def rows():
        return sorted((session, agent, int(epoch), int(packets), label) for session, agent, epoch, packets, label in case.rows())
    until(lambda: len(rows()) >= len(expected), 60, f"{len(expected)} rows")
    server.drain()
    assert rows() == expected
