"""A backend is swapped by its `use` line: the shipped server file with memory in place of Redis and RabbitMQ, and with
PostgreSQL in place of MySQL."""
import re
import sqlite3

import pytest
from millrace import BUILD, SAMPLE, pipeline, run, until
from server_flow import SERVER, Process, Services, Upload, need_plugins

need_plugins()
IN_MEMORY = {"split-redis": "split-memory.tickets", "queue-rabbit": "queue-memory", "split-redis.claim": "split-memory.claim"}
# The server that a sink writes to, and how its rows are read.
STORES = {
    "sink-mysql": ("mariadb", "SELECT LOWER(HEX(session)), packets, label FROM sessions"),
    "sink-postgres": ("postgres", "SELECT session, packets, label FROM sessions_readable"),
}


@pytest.fixture(scope="module", params=STORES)
def services(request, tmp_path_factory):
    if not (BUILD / f"lib/millrace/plugins/{request.param}.so").exists():
        pytest.skip(f"not built, a library is not installed: {request.param}")
    server, query = STORES[request.param]
    made = Services(tmp_path_factory.mktemp("services"), server)
    made.address.update(REDIS="redis://127.0.0.1:1", RABBITMQ="amqp://127.0.0.1:1")  # nobody is there
    made.instead = {**IN_MEMORY, "sink-mysql": request.param}
    if server == "postgres":
        made.address["MARIADB"] = made.address["POSTGRES"]
        made.sql = made.psql
    made.rows = lambda: sorted((session, int(packets), label) for session, packets, label in made.sql(query))
    yield made
    made.stop()


def test_the_server_file_runs_in_memory_by_its_use_lines(services, tmp_path):
    text = SERVER.read_text(encoding="utf-8")
    for use, instead in services.instead.items():
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

    until(lambda: len(services.rows()) >= len(expected), 60, f"{len(expected)} rows")
    server.drain()
    assert [row[0] for row in services.rows()] == [row[0] for row in expected]
    assert services.rows() == expected
