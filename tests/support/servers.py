"""The servers that tests/services starts: how each is set up, started, asked and stopped."""
from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time

READY_SECONDS = 90
STOP_SECONDS = 30


class Failure(Exception):
    pass


class Lost(Failure):
    """The server ended before it was ready, maybe because another took its port first."""


def members(session: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = int(path.split("/")[2]), pathlib.Path(path).read_text(encoding="latin-1").rsplit(")", 1)[1]
            state, _, _, its_session = rest.split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append(pid)
    return found


def start_time(pid: int) -> int:
    """Tells a process from a later one with the same number; 0 if there is none."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rsplit(")", 1)[1].split()[19])
    except OSError:
        return 0


def free_port() -> int:
    # Below the ports that the system gives to clients: a restarted server must find its own free.
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def ask(port: int, question: bytes, enough: bytes) -> bool:
    """Whether a server's first answer contains `enough`."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.settimeout(2)
        connection.sendall(question)
        while enough not in answer:
            piece = connection.recv(4096)
            if not piece:
                return False
            answer += piece
        return True
    return False


class Server:
    """One server; what is known of it between calls is in DIR/NAME.json."""
    name = ""
    packages: dict[str, str] = {}  # a file that proves it (a pattern), and the package it is from
    ports = ("port",)
    after: tuple[str, ...] = ()  # servers that must be ready first
    stop_signal = signal.SIGTERM

    def __init__(self, root: pathlib.Path):
        self.root, self.data, self.log = root, root / self.name, root / f"{self.name}.log"
        self.file = root / f"{self.name}.json"
        self.state: dict = {"ports": {}, "processes": {}, "options": [], "wanted": False}
        with contextlib.suppress(FileNotFoundError):
            self.state.update(json.loads(self.file.read_text(encoding="utf-8")))

    def save(self) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.state), encoding="utf-8")
        fresh.replace(self.file)

    @property
    def port(self) -> int:
        return self.state["ports"]["port"]

    @property
    def options(self) -> list[str]:
        return self.state["options"]

    def missing(self) -> list[str]:
        """Why it cannot be started here."""
        return [f"package {package} is not installed" for pattern, package in self.packages.items() if not glob.glob(pattern)]

    def processes(self, role: str | None = None) -> list[int]:
        found = []
        for its_role, (pid, started) in self.state["processes"].items():
            if role in (None, its_role) and start_time(pid) in (0, started):
                found += members(pid)
        return found

    def spawn(self, role: str, command: list[str], env: dict | None = None) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data,
                                       env={**os.environ, **(env or {})}, start_new_session=True)
        self.state["processes"][role] = [process.pid, start_time(process.pid)]
        self.save()

    def run(self, command: list[str], **more) -> None:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more)
        if done.returncode != 0:
            raise Failure(f"{self.name}: {command[0]} failed: {(done.stdout + done.stderr).strip()[-2000:]}")

    def start(self) -> None:
        if self.processes("server"):
            return
        for attempt in range(3):
            fresh = not self.state["ports"]
            for port in self.ports:
                self.state["ports"].setdefault(port, free_port())
            self.state["wanted"] = True
            self.data.mkdir(parents=True, exist_ok=True)
            try:
                self.prepare()
                self.launch()
                self.wait_until_ready()
                return
            except Lost:
                if not fresh or attempt == 2:
                    raise
                self.signal(signal.SIGKILL)
                self.state["ports"] = {}

    def wait_until_ready(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while True:
            # Asked first: somebody else's server on the port must not answer for one that has ended.
            alive = bool(self.processes("server"))
            if alive and self.ready():
                return
            if not alive or time.monotonic() > until:
                tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
                what = f"is not ready after {READY_SECONDS} s" if alive else "ended before it was ready"
                raise (Failure if alive else Lost)("\n".join([f"{self.name} {what}; the end of {self.log}:", *tail]))
            time.sleep(0.05)

    def signal(self, number: int, role: str | None = None, wait: bool = True) -> bool:
        """Whether the processes are gone in time; returns at once if not asked to wait."""
        for pid in self.processes(role):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + STOP_SECONDS
        while wait and self.processes(role):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        self.signal(signal.SIGCONT, wait=False)
        if not (self.signal(self.stop_signal, "server") and self.signal(signal.SIGTERM)):
            self.signal(signal.SIGKILL)
        self.state["processes"], self.state["wanted"] = {}, False
        self.save()

    def check_socket(self, path: pathlib.Path) -> None:
        if len(str(path)) > 100:
            raise Failure(f"the path of {path} is too long for a socket; take a shorter --dir")

    def prepare(self) -> None: ...
    def launch(self) -> None: ...
    def ready(self) -> bool: ...
    def address(self) -> str: ...


class Redis(Server):
    name = "redis"
    packages = {"/usr/bin/redis-server": "redis-server"}

    def launch(self):
        self.spawn("server", ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data),
                              "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", *self.options])

    def ready(self):
        return ask(self.port, b"PING\r\n", b"+PONG\r\n")

    def address(self):
        return f"redis://127.0.0.1:{self.port}"


class RabbitMQ(Server):
    name = "rabbitmq"
    packages = {"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server": "rabbitmq-server"}
    ports = ("port", "distribution", "epmd")
    plugins_variable = "MILLRACE_RABBITMQ_PLUGINS"

    def scripts(self) -> pathlib.Path:
        # Debian's wrappers in /usr/sbin switch to another user.
        return pathlib.Path(sorted(glob.glob(next(iter(self.packages))))[-1]).parent

    @property
    def plugins(self) -> list[str]:
        return self.state.get("plugins", [])

    def plugin_folders(self) -> list[str]:
        """The broker's own, Debian's for what is not of the broker, and those of the variable."""
        more = os.environ.get(self.plugins_variable, "").split(":")
        return [str(self.scripts().parent / "plugins"), "/usr/lib/rabbitmq/plugins", *filter(None, more)]

    def missing(self):
        reasons = super().missing()
        for plugin in [] if reasons else self.plugins:
            # A folder or an archive, with its version or without.
            if not any(glob.glob(f"{folder}/{plugin}{end}") for folder in self.plugin_folders()
                       for end in ("", ".ez", "-[0-9]*")):
                reasons.append(f"RabbitMQ's plugin {plugin} is in none of {', '.join(self.plugin_folders())}; "
                               f"{self.plugins_variable} names more folders")
        return reasons

    def env(self) -> dict[str, str]:
        ports = self.state["ports"]
        return {
            "RABBITMQ_PLUGINS_DIR": ":".join(self.plugin_folders()),
            "HOME": str(self.data), "RABBITMQ_NODENAME": f"millrace{self.port}@localhost",
            "RABBITMQ_BASE": str(self.data), "RABBITMQ_MNESIA_BASE": str(self.data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data / "log"), "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.data / "pid"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.data / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.data / "enabled_plugins"),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(ports["distribution"]), "ERL_EPMD_PORT": str(ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def prepare(self):
        cookie = self.data / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(f"{random.SystemRandom().getrandbits(128):032X}", encoding="ascii")
            cookie.chmod(0o400)
        (self.data / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n", encoding="ascii")
        (self.data / "rabbitmq.conf").write_text("\n".join([*self.options, ""]), encoding="utf-8")

    def launch(self):
        if not self.processes("epmd"):
            self.spawn("epmd", ["epmd", "-port", str(self.state["ports"]["epmd"]), "-address", "127.0.0.1"])
        self.spawn("server", [str(self.scripts() / "rabbitmq-server")], self.env())

    def ready(self):
        # The broker listens last; its answer is Connection.Start.
        return ask(self.port, b"AMQP\0\0\x09\x01", b"PLAIN")

    def address(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"


class ZooKeeper(Server):
    name = "zookeeper"
    packages = {"/usr/bin/java": "openjdk-17-jre-headless", "/usr/share/java/zookeeper.jar": "libzookeeper-java"}

    def prepare(self):
        # Short ticks: a session may be as short as a second, and no longer than ten.
        (self.data / "zoo.cfg").write_text("\n".join([
            "tickTime=500", "initLimit=20", "syncLimit=10", f"dataDir={self.data / 'data'}",
            f"clientPort={self.port}", "clientPortAddress=127.0.0.1", "admin.enableServer=false",
            "4lw.commands.whitelist=ruok,srvr,mntr", "maxClientCnxns=0", *self.options, ""]), encoding="utf-8")
        (self.data / "log4j.properties").write_text(
            "log4j.rootLogger=INFO, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d %p %c{1}: %m%n\n", encoding="utf-8")

    def launch(self):
        self.spawn("server", ["java", "-Xmx128m", "-Dzookeeper.jmx.log4j.disable=true", "-cp",
                              f"{self.data}:/usr/share/java/zookeeper.jar",
                              "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self.data / "zoo.cfg")])

    def ready(self):
        return ask(self.port, b"srvr", b"Mode: ")

    def address(self):
        return f"127.0.0.1:{self.port}"


class ZooKeeperMember(ZooKeeper):
    """One of the three of an ensemble, which are to be started by one call."""
    number = 0
    choosing = threading.Lock()

    @property
    def options(self):
        file = self.root / "zookeeper.peers"
        with self.choosing:
            if not file.exists():
                file.write_text(json.dumps([[free_port(), free_port()] for _ in range(3)]), encoding="utf-8")
        peers = json.loads(file.read_text(encoding="utf-8"))
        return super().options + [f"server.{n}=127.0.0.1:{a}:{b}" for n, (a, b) in enumerate(peers, 1)]

    def prepare(self):
        super().prepare()
        (self.data / "data").mkdir(exist_ok=True)
        (self.data / "data" / "myid").write_text(str(self.number), encoding="ascii")


ENSEMBLE = [type(f"ZooKeeper{n}", (ZooKeeperMember,), {"name": f"zookeeper{n}", "number": n}) for n in (1, 2, 3)]
