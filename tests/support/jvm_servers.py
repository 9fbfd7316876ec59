"""Kafka and Canal for tests/services, from their Maven artifacts."""
from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import string
import subprocess
import tempfile
import uuid

from databases import MariaDB, MySQL
from servers import Failure, Server, ask

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "millrace/jars"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId> <artifactId>jars</artifactId> <version>1</version> <packaging>pom</packaging>
  <build><plugins><plugin>
    <artifactId>maven-dependency-plugin</artifactId>
    <configuration>
      <outputDirectory>${project.basedir}</outputDirectory>
      <artifactItems>
%s
      </artifactItems>
    </configuration>
  </plugin></plugins></build>
</project>
"""


def item(path: str) -> str:
    """An artifact of a list, for Maven."""
    *group, artifact, version, _ = path.split("/")
    return (f"<artifactItem><groupId>{'.'.join(group)}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></artifactItem>")


def matches(file: pathlib.Path, expected: str) -> bool:
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == expected


def fetch(lines: list[str]) -> list[pathlib.Path]:
    """The artifacts of a list of sums and paths: those that the cache lacks are brought by Maven, from wherever it is
    set up to get them. Throws OSError if it cannot."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = [(expected, path, CACHE / pathlib.PurePosixPath(path).name) for expected, path in map(str.split, lines)]
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lacking = [one for one in wanted if not matches(one[2], one[0])]
        if lacking:
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                bring([path for _, path, _ in lacking], pathlib.Path(folder))
                for expected, path, file in lacking:
                    brought = pathlib.Path(folder) / file.name
                    if not matches(brought, expected):
                        raise Failure(f"{path} is not what it was: its SHA-256 differs")
                    brought.replace(file)
    return [file for _, _, file in wanted]


def bring(paths: list[str], folder: pathlib.Path) -> None:
    if not shutil.which("mvn"):
        raise OSError("package maven is not installed")
    (folder / "pom.xml").write_text(POM % "\n".join(map(item, paths)), encoding="utf-8")
    try:
        done = subprocess.run(["mvn", "--batch-mode", "--quiet", f"{PLUGIN}:copy"], cwd=folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"mvn does not end within {error.timeout} s") from None
    if done.returncode != 0:
        found = re.search(r"\[ERROR\] (.*)", done.stdout)
        raise OSError(f"mvn: {found.group(1) if found else done.stderr.strip()}")


class JvmServer(Server):
    """A server whose jars, with their sums, are listed in NAME.sha256."""
    packages = {"/usr/bin/java": "openjdk-17-jre-headless"}
    jars: list[str] = []

    def missing(self):
        missing = super().missing()
        try:
            lines = (HERE / f"{self.name}.sha256").read_text(encoding="utf-8").splitlines()
            self.jars = [str(file) for file in fetch(lines)]
        except OSError as error:
            missing.append(f"the jars of {self.name} cannot be fetched: {error}")
        return missing

    def java(self, main: str, *arguments: str, properties: tuple[str, ...] = ()) -> list[str]:
        if not self.jars:
            self.missing()
        return ["java", "-Xmx256m", *properties, "-cp", ":".join([str(self.data / "conf"), *self.jars]), main, *arguments]


class Kafka(JvmServer):
    """One node, broker and controller (KRaft). Topics are made when they are first used. Beside the plain port there are
    two for the user `millrace` (mechanism PLAIN), the second with TLS, whose certificate is signed by itself."""
    name = "kafka"
    packages = {**JvmServer.packages, "/usr/bin/openssl": "openssl"}
    ports = ("port", "controller", "sasl_plaintext", "sasl_ssl")
    password = "only for tests"

    @property
    def certificate(self) -> pathlib.Path:
        return self.data / "conf/certificate.pem"

    def at(self, port: str) -> str:
        return f"127.0.0.1:{self.state['ports'][port]}"

    def prepare(self):
        controller = self.state["ports"]["controller"]
        conf = self.data / "conf"
        conf.mkdir(exist_ok=True)
        if not (conf / "identity.pem").exists():
            self.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kafka", "-addext",
                      "subjectAltName=IP:127.0.0.1", "-keyout", str(conf / "key.pem"), "-out", str(self.certificate)])
            (conf / "identity.pem").write_text((conf / "key.pem").read_text(encoding="ascii") +
                                               self.certificate.read_text(encoding="ascii"), encoding="ascii")
        login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_millrace="{self.password}";'
        (conf / "server.properties").write_text("\n".join([
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller},"
            f"SASL_PLAINTEXT://{self.at('sasl_plaintext')},SASL_SSL://{self.at('sasl_ssl')}",
            "listener.security.protocol.map=" + ",".join(
                f"{name}:{name}" for name in ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL")) + ",CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms=PLAIN", f"listener.name.sasl_plaintext.plain.sasl.jaas.config={login}",
            f"listener.name.sasl_ssl.plain.sasl.jaas.config={login}",
            "ssl.keystore.type=PEM", f"ssl.keystore.location={conf / 'identity.pem'}",
            "controller.listener.names=CONTROLLER", f"log.dirs={self.data / 'data'}", "num.partitions=1",
            "offsets.topic.replication.factor=1", "offsets.topic.num.partitions=1", "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1", "group.initial.rebalance.delay.ms=0", *self.options, ""]), encoding="utf-8")
        if not (self.data / "data/meta.properties").exists():
            shutil.rmtree(self.data / "data", ignore_errors=True)
            self.run(self.java("kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c",
                               str(conf / "server.properties")))

    def launch(self):
        self.spawn("server", self.java("kafka.Kafka", str(self.data / "conf/server.properties")))

    def ready(self):
        # ApiVersions, version 0, correlation 1, no client id.
        return ask(self.port, bytes.fromhex("0000000a 0012 0000 00000001 ffff"), b"\0\0\0\x01")

    def address(self):
        return f"127.0.0.1:{self.port}"


class Canal(JvmServer):
    """Reads the binary log of MariaDB, or of MySQL where that is started, and writes the changes of the database
    `millrace` to Kafka, all of this folder. After a restart it goes on where it was."""
    name = "canal"
    after = ("mariadb", "kafka")
    ports = ("port", "metrics")
    topic = "millrace-config"

    @property
    def database(self) -> MariaDB:
        mysql = MySQL(self.root)
        return mysql if mysql.state["wanted"] else MariaDB(self.root)

    def sql(self, text: str) -> str:
        done = subprocess.run(["mariadb", "--no-defaults", f"--socket={self.database.socket}", "--user=root", "--batch",
                               "--execute", text], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"canal: mariadb: {done.stderr.strip()}")
        return done.stdout

    def prepare(self):
        self.sql("CREATE USER IF NOT EXISTS canal@'127.0.0.1' IDENTIFIED BY 'canal'; "
                 "GRANT SELECT, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO canal@'127.0.0.1'")
        conf = self.data / "conf"
        conf.mkdir(exist_ok=True)
        (conf / "canal.properties").write_text("\n".join([
            "canal.ip = 127.0.0.1", f"canal.port = {self.port}", f"canal.metrics.pull.port = {self.state['ports']['metrics']}",
            "canal.serverMode = kafka", f"canal.mq.servers = {Kafka(self.root).address()}", "canal.mq.flatMessage = true",
            "canal.mq.acks = all", "canal.mq.lingerMs = 1", "canal.mq.transaction = false", "canal.zkServers =", "canal.withoutNetty = true", "canal.destinations = millrace",
            "canal.auto.scan = false",
            "canal.instance.global.mode = spring", "canal.instance.global.lazy = false",
            "canal.instance.global.spring.xml = classpath:instance.xml", *self.options, ""]), encoding="utf-8")
        instance = string.Template((HERE / "canal-instance.xml").read_text(encoding="utf-8"))
        (conf / "instance.xml").write_text(
            instance.substitute(port=self.database.port, topic=self.topic, folder=self.data / "data"), encoding="utf-8")
        (conf / "logback.xml").write_text(
            '<configuration><appender name="S" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %-5level '
            '%logger{30} %msg%n</pattern></encoder></appender><root level="INFO"><appender-ref ref="S"/></root></configuration>',
            encoding="utf-8")

    def launch(self):
        self.spawn("server", self.java("com.alibaba.otter.canal.deployer.CanalLauncher",
                                       properties=(f"-Dlogback.configurationFile={self.data / 'conf/logback.xml'}",
                                                   f"-Dcanal.conf={self.data / 'conf/canal.properties'}")))

    def ready(self):
        # From now on it sees every change.
        return "Binlog Dump" in self.sql("SELECT command FROM information_schema.processlist WHERE user = 'canal'")

    def address(self):
        return f"127.0.0.1:{self.port}/{self.topic}"
