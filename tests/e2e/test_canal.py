"""SQL in a real MariaDB (or MySQL), real Canal, real Kafka, `millrace run`: what changes in the database comes out."""
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from millrace import BUILD, PROGRAM, SOURCE, pipeline
from server_flow import DATABASE

sys.path.insert(0, str(SOURCE / "tests/support"))
from jvm_servers import Kafka  # noqa: E402

SERVICES = SOURCE / "tests/services"
PLUGIN = BUILD / "lib/millrace/plugins/source-canal.so"

pytestmark = pytest.mark.skipif(not PLUGIN.exists(), reason="the plugin source-canal was not built")

CHANGES = """
[stage.changes]
use          = "source-canal"
brokers      = "${BROKERS}"
topics       = "${TOPIC:-millrace-config}"
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
        done = subprocess.run([SERVICES, "start", DATABASE, "kafka", "canal", "--dir", folder],
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
                        f"--socket={self.folder}/{DATABASE}/sock", "--user=root", "millrace", "--execute", text],
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

    def __init__(self, folder: pathlib.Path, servers: Servers, group: str = "e2e", *arguments: str):
        self.out, self.log = folder / "changes.jsonl", folder / "log"
        path = pipeline(folder, CHANGES, PRINT)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "run", path, "--plugins", BUILD / "tests/canal", "--plugins", PLUGIN.parent, "--var",
                 f"BROKERS={servers.brokers()}", "--var", f"OUT={self.out}", "--var", f"GROUP={group}", *arguments],
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


class Secured:
    """The doors of Kafka that ask for a user, and a topic with one change."""
    topic = "secured"

    def __init__(self, servers: Servers):
        self.kafka = Kafka(servers.folder)
        change = {"type": "INSERT", "database": "millrace", "table": "agent_config", "isDdl": False, "data": [{"agent": "s1"}]}
        subprocess.run(["kcat", "-P", "-b", servers.brokers(), "-t", self.topic], input=json.dumps(change), text=True,
                       capture_output=True, check=True, timeout=60)

    def arguments(self, folder: pathlib.Path, protocol: str, password: str = "", **properties: str) -> list[str]:
        """For `millrace run`: this door, the right user and password, unless `properties` say otherwise."""
        (folder / "password").write_text(password or self.kafka.password, encoding="utf-8")
        given = {"security.protocol": protocol, "sasl.mechanism": "PLAIN", "sasl.username": "millrace",
                 "sasl.password": f"${{file:{folder}/password}}"}
        if protocol == "sasl_ssl":
            given["ssl.ca.location"] = str(self.kafka.certificate)
        given |= {key.replace("_", "."): value for key, value in properties.items()}
        table = ", ".join(f'"{key}" = {json.dumps(value)}' for key, value in given.items() if value)
        return ["--var", f"TOPIC={self.topic}", "--set", f"changes.kafka={{ {table} }}",
                "--set", f"changes.brokers={self.kafka.at(protocol)}"]


@pytest.fixture(scope="module", name="secured")
def secured_fixture(servers):
    if not shutil.which("kcat"):
        pytest.skip("kcat is not installed (package kcat)")
    return Secured(servers)


@pytest.mark.parametrize("protocol", ["sasl_plaintext", "sasl_ssl"])
def test_changes_come_through_a_door_with_a_password(tmp_path, servers, secured, protocol):
    run = Run(tmp_path, servers, f"group-{protocol}", *secured.arguments(tmp_path, protocol))
    assert run.wait_for(1)[0]["after"] == {"agent": "s1"}
    run.stop()


@pytest.mark.parametrize("protocol, properties, words", [
    ("sasl_plaintext", {"password": "not the right one"}, "Authentication failed: Invalid username or password"),
    ("sasl_ssl", {"password": "not the right one"}, "Authentication failed: Invalid username or password"),
    ("sasl_ssl", {"ssl_ca_location": ""}, "certificate verify failed"),
    ("sasl_plaintext", {"sasl_mechanism": "SCRAM-SHA-256"}, "SCRAM-SHA-256"),
])
def test_what_the_door_refuses_is_an_error_that_says_why(tmp_path, servers, secured, protocol, properties, words):
    run = Run(tmp_path, servers, "refused", *secured.arguments(tmp_path, protocol, **properties), "--set", "changes.wait=2s")
    assert run.process.wait(60) == 2
    log = run.log.read_text(encoding="utf-8")
    assert words in log
    assert secured.kafka.at(protocol) in log
    assert not any(password in log for password in (secured.kafka.password, "not the right one"))
    assert not run.changes()
