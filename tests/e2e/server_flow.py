"""The server flow as processes: private servers, receivers, analysers, and clients that upload."""
from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
from millrace import BUILD, SOURCE, Running

SERVER = SOURCE / "pipelines/server.toml"
# The store's server: MariaDB, or the MySQL whose mysqld MILLRACE_MYSQLD names.
DATABASE = "mysql" if os.environ.get("MILLRACE_MYSQLD") else "mariadb"
DELAYING = ("--plugin", "rabbitmq_delayed_message_exchange")
COLUMNS = "LOWER(HEX(session)), packets, bytes, payload_bytes, label"
PLUGINS = ("source-http", "split-redis", "queue-rabbit", "sink-mysql", "model-torch")


def need_plugins():
    missing = [name for name in PLUGINS if not (BUILD / f"lib/millrace/plugins/{name}.so").exists()]
    if missing:
        pytest.skip(f"not built, a library is not installed: {', '.join(missing)}")


class Services:
    """Private servers in a folder; they end with this process at the latest."""

    def __init__(self, folder: pathlib.Path, *names: str):
        self.folder = folder
        self.address: dict[str, str] = {}
        self.start(*names, "--parent", str(os.getpid()))

    def start(self, *arguments: str):
        result = self.call("start", *arguments)
        if result.returncode == 77:
            self.stop()
            pytest.skip(result.stderr.strip())
        assert result.returncode == 0, result.stderr
        self.address.update(re.findall(r"export MILLRACE_(\w+)=(\S+)", (self.folder / "env").read_text(encoding="utf-8")))

    def call(self, command: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, SOURCE / "tests/services", command, "--dir", str(self.folder), *arguments],
                              capture_output=True, text=True, timeout=300, check=False)

    def must(self, command: str, *arguments: str) -> str:
        result = self.call(command, *arguments)
        assert result.returncode == 0, f"{command} {arguments}: {result.stdout}{result.stderr}"
        return result.stdout

    def redis(self, *command: str) -> list[str]:
        address = urllib.parse.urlparse(self.address["REDIS"])
        return subprocess.run(["redis-cli", "-p", str(address.port), *command], capture_output=True, text=True, timeout=60,
                              check=True).stdout.splitlines()

    @property
    def database(self) -> str:
        return self.address.get("MARIADB") or self.address["MYSQL"]

    def sql(self, statement: str) -> list[tuple[str, ...]]:
        address = urllib.parse.urlparse(self.database)
        result = subprocess.run(
            ["mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", str(address.port), "-u", "root", "--batch", "--skip-column-names",
             address.path[1:], "-e", statement], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return [tuple(line.split("\t")) for line in result.stdout.splitlines()]

    def psql(self, statement: str) -> list[tuple[str, ...]]:
        result = subprocess.run(["psql", self.address["POSTGRES"], "-X", "-A", "-t", "-F", "\t", "-c", statement],
                                capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return [tuple(line.split("\t")) for line in result.stdout.splitlines()]

    def queues(self) -> dict[str, int]:
        """Messages by queue, also those that were delivered and not acknowledged."""
        text = self.must("rabbitmqctl", "-q", "list_queues", "name", "messages", "--no-table-headers")
        return {name: int(messages) for name, messages in (line.split() for line in text.splitlines() if line.strip())}

    def stop(self):
        self.call("stop")


class Process(Running):
    """One `millrace run` of a part of the server file."""

    def __init__(self, folder: pathlib.Path, name: str, part: str, services: Services, settings: dict[str, str],
                 path: pathlib.Path = SERVER, env: dict[str, str] | None = None):
        variables = {"REDIS": services.address["REDIS"], "RABBITMQ": services.address["RABBITMQ"],
                     "MYSQL": services.database, "LISTEN": "127.0.0.1:0"}
        command = [path, "--admin", "127.0.0.1:0", *(("--stages", part) if part else ())]
        for key, value in variables.items():
            command += ["--var", f"{key}={value}"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        super().__init__(folder / f"{name}.log", *command, env={**os.environ, **(env or {})})

    def get(self, path: str, patience: float = 60) -> tuple[int, str]:
        """What the admin endpoint answers."""
        address = urllib.parse.urlparse(self.wait_for(r"health and metrics on (http://\S+)").group(1))
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=patience)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def counted(self, stage: str, name: str) -> int:
        """What the process has counted so far: a counter of the stage's own, or the host's, like `retried`."""
        text = self.get("/metrics")[1]
        found = re.search(rf'^millrace_(?:items_{name}_total\{{stage="{stage}"|stage_count_total\{{stage="{stage}",name="{name}")'
                          r"\} (\d+)$", text, re.M)
        return int(found.group(1)) if found else 0


class Upload:
    """A client that posts chunks in order, each until it is answered with success, to any of some addresses. It stops in
    the middle of the chunk of number `hold_at` and waits for `go_on`."""

    def __init__(self, agent: str, bodies: list[bytes], addresses, patience: float = 180, hold_at: int | None = None,
                 first: int = 0):
        self.agent, self.bodies, self.addresses, self.patience = agent, bodies, addresses, patience
        self.first = first  # number of the first chunk, in its name
        self.hold_at, self.held, self.go_on = hold_at, threading.Event(), threading.Event()
        self.address = ""  # where the chunk under way goes
        self.retries = 0
        self.done = 0
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Upload":
        self.thread.start()
        return self

    def join(self):
        self.thread.join(self.patience + 60)
        assert not self.thread.is_alive(), f"{self.agent}: {self.done} of {len(self.bodies)} chunks"
        if self.error:
            raise self.error

    def _run(self):
        try:
            for number, body in enumerate(self.bodies):
                self._post(body, f"{self.agent}-{self.first + number}")
                self.done += 1
        except Exception as error:  # told by join
            self.error = error

    def _pieces(self, body: bytes):
        half = len(body) // 2
        yield body[:half]
        if self.done == self.hold_at and not self.go_on.is_set():
            self.held.set()
            self.go_on.wait(self.patience)
        yield body[half:]

    def _post(self, body: bytes, chunk: str):
        end = time.monotonic() + self.patience
        attempt = self.done  # so that the receivers take turns
        said = ""
        while time.monotonic() < end:
            addresses = self.addresses()
            self.address = addresses[attempt % len(addresses)]
            address = urllib.parse.urlparse(self.address)
            attempt += 1
            try:
                connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
                connection.request("POST", "/v1/captures", self._pieces(body),
                                   {"Millrace-Agent": self.agent, "Millrace-Chunk": chunk, "Content-Length": str(len(body))})
                answer = connection.getresponse()
                said = f"{answer.status} {answer.read().decode()}"
                connection.close()
                if answer.status == 200:
                    return
                assert answer.status in (409, 429, 503), said
                time.sleep(min(float(answer.headers.get("Retry-After", 1)), 1))
            except (OSError, http.client.HTTPException) as error:
                said = repr(error)
                time.sleep(0.2)
            self.retries += 1
        raise AssertionError(f"{chunk} was not taken within {self.patience} s: {said}")


class Server:
    """Services, and the processes that a test has started."""

    def __init__(self, folder: pathlib.Path, services: Services | None = None):
        need_plugins()
        self.folder = folder
        self.own = services is None
        self.services = services or Services(folder / "services", "redis", "rabbitmq", DATABASE)
        self.processes: list[Process] = []
        self.receivers: list[Process] = []
        self.analysers: list[Process] = []

    def start(self, name, part, env=None, **settings) -> Process:
        process = Process(self.folder, name, part, self.services, {key.replace("__", "."): value
                                                                  for key, value in settings.items()}, env=env)
        self.processes.append(process)
        return process

    def receiver(self, name, **settings) -> Process:
        process = self.start(name, "..queue", **settings)
        process.url = process.wait_for(r"listening on (http://\S+)").group(1)
        self.receivers.append(process)
        return process

    def analyser(self, name, **settings) -> Process:
        process = self.start(name, "queue..", **settings)
        self.analysers.append(process)
        return process

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
        if self.own:
            self.services.stop()
