"""SQL in a real MariaDB, real Canal, real Kafka, `millrace run`: what changes in the database comes out."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time

import pytest
from millrace import BUILD, PROGRAM, SOURCE, pipeline

SERVICES = SOURCE / "tests/services"
PLUGIN = BUILD / "lib/millrace/plugins/source-canal.so"

pytestmark = pytest.mark.skipif(not PLUGIN.exists(), reason="the plugin source-canal was not built")

CHANGES = """
[stage.changes]
use          = "source-canal"
brokers      = "${BROKERS}"
topics       = "millrace-config"
group        = "${GROUP:-e2e}"
tables       = "millrace.agent_config"
commit_every = "50ms"
"""
PRINT = """
[stage.print]
use  = "print-changes"
from = "changes"
path = "${OUT}"
"""


class Servers:
    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        done = subprocess.run([SERVICES, "start", "mariadb", "kafka", "canal", "--dir", folder],
                              capture_output=True, text=True, check=False)
        self.missing = done.stderr.strip() if done.returncode == 77 else ""
        assert done.returncode in (0, 77), done.stderr

    def command(self, *words: str):
        subprocess.run([SERVICES, *words, "--dir", self.folder], capture_output=True, text=True, check=True)

    def brokers(self) -> str:
        lines = (self.folder / "env").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if "MILLRACE_KAFKA=" in line).split("=", 1)[1]

    def sql(self, text: str):
        subprocess.run(["mariadb", "--no-defaults", "--default-character-set=utf8mb4",
                        f"--socket={self.folder}/mariadb/sock", "--user=root", "millrace", "--execute", text],
                       capture_output=True, text=True, check=True)


@pytest.fixture(scope="module", name="servers")
def servers_fixture():
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        servers = Servers(pathlib.Path(folder))
        if servers.missing:
            pytest.skip(servers.missing)
        try:
            yield servers
        finally:
            servers.command("stop")


class Run:
    """`millrace run` with the changes of the table in a file."""

    def __init__(self, folder: pathlib.Path, servers: Servers, group: str = "e2e"):
        self.out, self.log = folder / "changes.jsonl", folder / "log"
        path = pipeline(folder, CHANGES, PRINT)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "run", path, "--plugins", BUILD / "tests/canal", "--plugins", PLUGIN.parent, "--var",
                 f"BROKERS={servers.brokers()}", "--var", f"OUT={self.out}", "--var", f"GROUP={group}"],
                stdout=log, stderr=log)

    def changes(self) -> list[dict]:
        if not self.out.exists():
            return []
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines(keepends=True)
                if line.endswith("\n")]

    def wait_for(self, count: int, seconds: float = 90) -> list[dict]:
        until = time.monotonic() + seconds
        while len(self.changes()) < count:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            assert time.monotonic() < until, f"{self.changes()}\n{self.log.read_text(encoding='utf-8')}"
            time.sleep(0.05)
        return self.changes()

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text(encoding="utf-8")
        return self.log.read_text(encoding="utf-8")


def test_changes_of_rows_come_out_and_nothing_else(tmp_path, servers):
    servers.sql("CREATE TABLE agent_config (agent VARCHAR(64) PRIMARY KEY, filter VARCHAR(255), snaplen INT UNSIGNED, "
                "rate DECIMAL(10,2), big BIGINT UNSIGNED) CHARACTER SET utf8mb4; CREATE TABLE other (i INT)")
    run = Run(tmp_path, servers)
    servers.sql("INSERT INTO agent_config VALUES ('a1', 'größe 😀 \"q\"', 65535, 1.10, 18446744073709551615), "
                "('a2', NULL, NULL, NULL, NULL); INSERT INTO other VALUES (1), (2)")
    servers.sql("UPDATE agent_config SET filter = 'udp'; UPDATE agent_config SET filter = NULL WHERE agent = 'a1'")
    servers.sql("ALTER TABLE agent_config ADD COLUMN extra INT DEFAULT 7")
    servers.sql("UPDATE agent_config SET agent = 'a3' WHERE agent = 'a2'; DELETE FROM agent_config WHERE agent = 'a3'")
    changes = run.wait_for(7)
    log = run.stop()
    one = {"agent": "a1", "filter": 'größe 😀 "q"', "snaplen": "65535", "rate": "1.10", "big": "18446744073709551615"}
    two = {"agent": "a2", "filter": None, "snaplen": None, "rate": None, "big": None}
    udp = {**two, "filter": "udp", "extra": "7"}
    expected = [("insert", {}, one), ("insert", {}, two), ("update", one, {**one, "filter": "udp"}),
                ("update", two, {**two, "filter": "udp"}),
                ("update", {**one, "filter": "udp"}, {**one, "filter": None}), ("update", udp, {**udp, "agent": "a3"}),
                ("delete", {**udp, "agent": "a3"}, {})]
    assert [(change["kind"], change["before"], change["after"]) for change in changes] == expected
    assert {(change["database"], change["table"]) for change in changes} == {("millrace", "agent_config")}
    assert "dropped ddl" in log or "ddl" in log, log
    assert "table" in log, log
    assert "unreadable" not in log, log


def test_a_restart_goes_on_behind_what_was_delivered(tmp_path, servers):
    servers.sql("CREATE TABLE IF NOT EXISTS agent_config (agent VARCHAR(64) PRIMARY KEY, filter VARCHAR(255))")
    first = Run(tmp_path, servers, "restart")
    servers.sql("REPLACE INTO agent_config (agent) VALUES ('r1')")
    agents = lambda run: [change["after"].get("agent") for change in run.changes()]  # noqa: E731
    until = time.monotonic() + 90
    while "r1" not in agents(first) and time.monotonic() < until:
        time.sleep(0.05)
    before = len(first.changes())
    assert "r1" in agents(first), first.stop()
    first.stop()
    servers.sql("REPLACE INTO agent_config (agent) VALUES ('r2')")
    second = Run(tmp_path, servers, "restart")
    second.wait_for(before + 1)
    second.stop()
    assert agents(second)[before:] == ["r2"]


def test_an_outage_of_kafka_loses_no_change(tmp_path, servers):
    servers.sql("CREATE TABLE IF NOT EXISTS agent_config (agent VARCHAR(64) PRIMARY KEY, filter VARCHAR(255))")
    run = Run(tmp_path, servers, "outage")
    servers.sql("REPLACE INTO agent_config (agent) VALUES ('o1')")
    agents = lambda: [change["after"].get("agent") for change in run.changes()]  # noqa: E731

    def arrives(name: str) -> bool:
        until = time.monotonic() + 120
        while name not in agents() and time.monotonic() < until:
            time.sleep(0.05)
        return name in agents()

    assert arrives("o1"), run.stop()
    servers.command("kill", "kafka")
    servers.sql("REPLACE INTO agent_config (agent) VALUES ('o2')")
    until = time.monotonic() + 60
    while "can be reached for" not in run.log.read_text(encoding="utf-8"):
        assert time.monotonic() < until, run.log.read_text(encoding="utf-8")
        time.sleep(0.05)
    servers.command("start", "kafka")
    servers.sql("REPLACE INTO agent_config (agent) VALUES ('o3')")
    assert arrives("o2") and arrives("o3"), run.stop()
    run.stop()
