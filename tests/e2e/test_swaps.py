"""A backend is swapped by its `use` line: the shipped server file with memory in place of Redis and RabbitMQ."""
import re
import sqlite3

import pytest
from millrace import SAMPLE, pipeline, run, until
from server_flow import SERVER, Process, Services, Upload, need_plugins

need_plugins()
IN_MEMORY = {"split-redis": "split-memory.tickets", "queue-rabbit": "queue-memory", "split-redis.claim": "split-memory.claim"}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    made = Services(tmp_path_factory.mktemp("services"), "mariadb")
    made.address.update(REDIS="redis://127.0.0.1:1", RABBITMQ="amqp://127.0.0.1:1")  # nobody is there
    yield made
    made.stop()


def test_the_server_file_runs_in_memory_by_three_use_lines(services, tmp_path):
    text = SERVER.read_text(encoding="utf-8")
    for use, instead in IN_MEMORY.items():
        text, count = re.subn(rf'^(use +)= "{re.escape(use)}"$', rf'\1= "{instead}"', text, flags=re.M)
        assert count == 1
    server = Process(tmp_path, "server", "", services, {"sessions.delay": "1s", "queue.delay": "1s"}, pipeline(tmp_path, text))
    url = server.wait_for(r"listening on (http://\S+)").group(1)
    Upload("one", [SAMPLE.read_bytes()], lambda: [url]).start().join()

    database = tmp_path / "sessions.db"
    result = run("run", "pipelines/standalone.toml", "--var", f"CAPTURE={SAMPLE}", "--var", f"DATABASE={database}",
                 "--set", "sessions.delay=1s", "--set", "capture.agent=one")
    assert result.returncode == 0, result.stderr
    with sqlite3.connect(database) as connection:
        expected = sorted(connection.execute("SELECT session, packets, label FROM sessions"))
    assert expected

    def rows():
        return sorted((session, int(packets), label) for session, packets, label in services.sql(
            "SELECT LOWER(HEX(session)), packets, label FROM sessions"))
    until(lambda: len(rows()) >= len(expected), 60, f"{len(expected)} rows")
    server.drain()
    assert [row[0] for row in rows()] == [row[0] for row in expected]
    assert rows() == expected
