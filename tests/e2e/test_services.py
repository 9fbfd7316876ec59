"""tests/services: private servers that start, come back with their data, and go away."""
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from millrace import SOURCE

sys.path.insert(0, str(SOURCE / "tests/support"))
import jvm_servers  # noqa: E402

SCRIPT = SOURCE / "tests/services"


def services(*arguments, check=True):
    done = subprocess.run([str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert not check or done.returncode == 0, done.stderr
    return done


def redis(port, *words):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(5)
        connection.sendall((" ".join(words) + "\r\n").encode())
        return connection.recv(1000).decode()


def port_of(folder):
    line, = (folder / "env").read_text(encoding="utf-8").splitlines()
    assert line.startswith("export MILLRACE_REDIS=redis://127.0.0.1:")
    return int(line.rsplit(":", 1)[1])


def test_a_server_keeps_port_and_data_over_kill_and_restart(tmp_path):
    services("start", "redis", "--dir", tmp_path, "--option", "redis=--appendfsync always")
    try:
        port = port_of(tmp_path)
        assert redis(port, "SET", "key", "1") == "+OK\r\n"
        services("kill", "redis", "--dir", tmp_path)
        with pytest.raises(ConnectionRefusedError):
            redis(port, "PING")
        services("restart", "--dir", tmp_path, "redis")
        assert redis(port, "GET", "key") == "$1\r\n1\r\n"
        services("pause", "redis", "--dir", tmp_path)
        with pytest.raises(TimeoutError):
            redis(port, "PING")
        services("resume", "redis", "--dir", tmp_path)
        assert redis(port, "PING") == "+PONG\r\n"
        assert "redis runs" in services("status", "--dir", tmp_path).stdout
    finally:
        services("stop", "--dir", tmp_path)
    assert "redis stopped" in services("status", "--dir", tmp_path).stdout
    assert (tmp_path / "env").read_text(encoding="utf-8") == ""


def test_servers_end_with_the_process_they_were_started_for(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        services("start", "redis", "--dir", tmp_path, "--parent", parent.pid)
        assert "redis runs" in services("status", "--dir", tmp_path).stdout
        parent.kill()
        until = time.monotonic() + 20
        while "redis runs" in services("status", "--dir", tmp_path).stdout:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_signal_to_the_tests_group_does_not_reach_the_servers(tmp_path):
    script = f"'{SCRIPT}' start redis --dir '{tmp_path}' && exec sleep 60"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as group:
        try:
            if not group.stdout.readline():
                pytest.skip("Redis does not start; another test says why")
            os.killpg(group.pid, signal.SIGINT)
            group.wait(20)
            assert redis(port_of(tmp_path), "PING") == "+PONG\r\n"
        finally:
            services("stop", "--dir", tmp_path)


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    done = services("start", "redis", "--dir", tmp_path, "--option", "redis=--nonsense 1", check=False)
    assert done.returncode == 1
    assert "redis ended before it was ready" in done.stderr and "nonsense" in done.stderr
    assert "redis stopped" in services("status", "--dir", tmp_path).stdout


def test_what_is_not_installed_is_named(tmp_path):
    folder = tmp_path / "tests"
    (folder / "support").mkdir(parents=True)
    (folder / "services").write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("databases.py", "jvm_servers.py"):
        (folder / "support" / name).write_bytes((SOURCE / "tests/support" / name).read_bytes())
    servers = (SOURCE / "tests/support/servers.py").read_text(encoding="utf-8")
    (folder / "support/servers.py").write_text(servers.replace("/usr/bin/redis-server", "/nowhere/redis-server"),
                                               encoding="utf-8")
    done = subprocess.run([sys.executable, str(folder / "services"), "start", "redis", "--dir", str(tmp_path / "d")],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (77, "SKIPPED: package redis-server is not installed\n")
    assert not pathlib.Path(tmp_path / "d/redis.json").exists()


@pytest.mark.parametrize("command", ["start", "restart"])
def test_a_mysqld_that_no_variable_names_is_a_reason_to_skip(tmp_path, command):
    environment = {name: value for name, value in os.environ.items() if name != "MILLRACE_MYSQLD"}
    done = subprocess.run([str(SCRIPT), command, "mysql", "--dir", tmp_path], capture_output=True, text=True, check=False,
                          env=environment)
    assert done.returncode == 77, done.stderr
    assert done.stderr.endswith("SKIPPED: MILLRACE_MYSQLD names no mysqld\n") and "Traceback" not in done.stderr


def test_a_plugin_that_rabbitmq_does_not_find_is_a_reason_to_skip(tmp_path):
    done = subprocess.run([str(SCRIPT), "start", "rabbitmq", "--plugin", "no_such_plugin", "--dir", tmp_path / "d"],
                          capture_output=True, text=True, check=False, env={**os.environ, "MILLRACE_RABBITMQ_PLUGINS": "/nowhere"})
    if "package rabbitmq-server" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 77, done.stderr
    assert "SKIPPED: RabbitMQ's plugin no_such_plugin is in none of /" in done.stderr
    assert ", /nowhere; MILLRACE_RABBITMQ_PLUGINS names more folders" in done.stderr


NO_REPOSITORY = """<settings><mirrors><mirror>
  <id>none</id> <mirrorOf>*</mirrorOf> <url>http://127.0.0.1:1/</url>
</mirror></mirrors></settings>"""


@pytest.mark.skipif(not shutil.which("mvn") or not shutil.which("java"), reason="maven or a Java is not installed")
def test_jars_that_cannot_be_fetched_are_a_reason_to_skip(tmp_path):
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(NO_REPOSITORY, encoding="utf-8")
    done = subprocess.run([str(SCRIPT), "start", "kafka", "--dir", tmp_path / "d"], capture_output=True, text=True, check=False,
                          env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "MAVEN_OPTS": f"-Duser.home={tmp_path}"})
    assert done.returncode == 77, done.stderr
    assert "SKIPPED: the jars of kafka cannot be fetched: mvn: " in done.stderr


def test_a_jar_with_another_sum_is_not_taken(tmp_path, monkeypatch):
    """Neither from the cache nor from the repository."""
    monkeypatch.setattr(jvm_servers, "CACHE", tmp_path)
    path = "org/example/one/1.0/one-1.0.jar"
    monkeypatch.setattr(jvm_servers, "bring", lambda paths, folder: (folder / "one-1.0.jar").write_bytes(b"brought"))
    (tmp_path / "one-1.0.jar").write_bytes(b"cached")
    with pytest.raises(jvm_servers.Failure, match="one-1.0.jar is not what it was"):
        jvm_servers.fetch([f"{hashlib.sha256(b'expected').hexdigest()}  {path}"])
    sound = f"{hashlib.sha256(b'brought').hexdigest()}  {path}"
    assert [file.read_bytes() for file in jvm_servers.fetch([sound])] == [b"brought"]


@pytest.mark.parametrize("name", ["mariadb", "mysql", "postgres", "rabbitmq", "zookeeper"])
def test_the_others_start_and_stop(tmp_path, name):
    started = services("start", name, "--dir", tmp_path)
    try:
        assert f"export MILLRACE_{name.upper()}=" in started.stdout
        assert f"{name} runs" in services("status", "--dir", tmp_path).stdout
    finally:
        services("stop", "--dir", tmp_path)
    assert f"{name} stopped" in services("status", "--dir", tmp_path).stdout
