"""Sessions of a capture through `millrace run` into a real Kafka, and what is read back from there."""
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from millrace import BUILD, CAPTURE, HAS_MODEL, SAMPLE, SESSIONS, SOURCE, Running, pipeline, run, until
from server_flow import Services

sys.path.insert(0, str(SOURCE / "tests/support"))
from jvm_servers import Kafka as Server  # noqa: E402

PLUGIN = BUILD / "lib/millrace/plugins/sink-kafka.so"

pytestmark = pytest.mark.skipif(not PLUGIN.exists(), reason="the plugin sink-kafka was not built")

MODEL = """
[stage.model]
use   = "model-torch"
from  = "sessions"
model = "models/ustc-tfc2016-fast.pt"
"""
STORE = """
[stage.store]
use     = "sink-kafka"
from    = "{0}"
brokers = "${{BROKERS}}"
topic   = "${{TOPIC}}"

[stage.print]
use  = "sink-file"
from = "{0}"
path = "${{OUT}}"
"""


class Kafka(Services):
    def __init__(self, folder: pathlib.Path):
        super().__init__(folder, "kafka")
        self.brokers = self.address["KAFKA"]

    def configure(self, topic: str, setting: str):
        subprocess.run(Server(self.folder).java("kafka.admin.ConfigCommand", "--bootstrap-server", self.brokers, "--alter",
                                                "--entity-type", "topics", "--entity-name", topic, "--add-config", setting),
                       capture_output=True, check=True, timeout=120)

    def read(self, topic: str) -> list[dict]:
        """All messages of a topic as its consumers see them: key, payload, offset."""
        done = subprocess.run(["kcat", "-C", "-b", self.brokers, "-t", topic, "-o", "beginning", "-e", "-q", "-J"],
                              capture_output=True, text=True, check=True, timeout=60)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module", name="kafka")
def kafka_fixture(tmp_path_factory):
    if not shutil.which("kcat"):
        pytest.skip("kcat is not installed (package kcat)")
    made = Kafka(tmp_path_factory.mktemp("kafka"))
    yield made
    made.stop()


def compare(kafka: Kafka, topic: str, out: pathlib.Path) -> list[dict]:
    """The messages are the lines that sink-file has written, in their order, each once."""
    messages = kafka.read(topic)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert [message["payload"] for message in messages] == lines
    sessions = [json.loads(line) for line in lines]
    assert [message["key"] for message in messages] == [session["session"] for session in sessions]
    assert sessions and len({session["session"] for session in sessions}) == len(sessions)
    return sessions


def test_messages_are_the_lines_of_sink_file(tmp_path, kafka):
    out = tmp_path / "out.jsonl"
    result = run("run", pipeline(tmp_path, CAPTURE, SESSIONS, STORE.format("sessions")), "--var", f"CAPTURE={SAMPLE}",
                 "--var", f"BROKERS={kafka.brokers}", "--var", "TOPIC=plain", "--var", f"OUT={out}")
    assert result.returncode == 0, result.stderr
    sessions = compare(kafka, "plain", out)
    assert {session["label"] for session in sessions} == {""}
    assert f"messages {len(sessions)}" in result.stderr, result.stderr


@pytest.mark.skipif(not HAS_MODEL, reason="the plugin model-torch was not built")
def test_verdicts_of_the_model(tmp_path, kafka):
    out = tmp_path / "out.jsonl"
    result = run("run", pipeline(tmp_path, CAPTURE, SESSIONS, MODEL, STORE.format("model")), "--var", f"CAPTURE={SAMPLE}",
                 "--var", f"BROKERS={kafka.brokers}", "--var", "TOPIC=labelled", "--var", f"OUT={out}")
    assert result.returncode == 0, result.stderr
    assert all(session["label"] for session in compare(kafka, "labelled", out))


def test_an_outage_repeats_and_loses_nothing(tmp_path, kafka):
    out = tmp_path / "out.jsonl"
    data = SAMPLE.read_bytes()
    running = Running(tmp_path / "log", pipeline(tmp_path, CAPTURE, SESSIONS, STORE.format("sessions")), "--var", "CAPTURE=-",
                      "--var", f"BROKERS={kafka.brokers}", "--var", "TOPIC=outage", "--var", f"OUT={out}", stdin=subprocess.PIPE)
    try:
        with running.process.stdin as pipe:
            pipe.write(data[:len(data) // 2])
            pipe.flush()
            running.wait_for("the brokers have what was waited for")
            until(lambda: kafka.read("outage"), 60, "first sessions")
            kafka.must("kill", "kafka")
            running.wait_for("can be reached for")
            pipe.write(data[len(data) // 2:])
        kafka.must("start", "kafka")
        assert running.process.wait(120) == 0, running.text()
    finally:
        running.kill()
    compare(kafka, "outage", out)


def test_what_the_topic_does_not_take_is_a_dead_letter(tmp_path, kafka):
    out, dead = tmp_path / "out.jsonl", tmp_path / "dead.jsonl"
    file = pipeline(tmp_path, CAPTURE, SESSIONS, STORE.format("sessions"))
    arguments = ("run", file, "--var", f"CAPTURE={SAMPLE}", "--var", f"BROKERS={kafka.brokers}", "--var", "TOPIC=narrow",
                 "--var", f"OUT={out}", "--set", "store.compression=none")
    assert run(*arguments).returncode == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    # Of a request with one message 61 bytes are its own, 32 the key, and 9 lengths, times and flags.
    longest = sorted(map(len, lines))[len(lines) // 2]
    kafka.configure("narrow", f"max.message.bytes={61 + 32 + 9 + longest}")
    result = run(*arguments, "--set", f'store.on_reject={{ file = "{dead}" }}')
    assert result.returncode == 0, result.stderr
    taken = [message["payload"] for message in kafka.read("narrow")][len(lines):]
    rejected = [json.loads(line) for line in dead.read_text(encoding="utf-8").splitlines()]
    assert all("too large" in letter["reason"] for letter in rejected)
    assert taken == [line for line in lines if len(line) <= longest]
    assert [letter["item"] for letter in rejected] == [json.loads(line) for line in lines if len(line) > longest]
    assert taken and rejected
    assert "sent-alone " in result.stderr, result.stderr
