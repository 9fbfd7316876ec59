"""Kafka and Canal for tests/services, from their Maven artifacts."""
from __future__ import annotations

import concurrent.futures
import hashlib
import os
import pathlib
import shutil
import string
import subprocess
import urllib.error
import urllib.request
import uuid

from servers import Failure, MariaDB, Server, ask

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = os.environ.get("MILLRACE_MAVEN", "https://repo1.maven.org/maven2")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "millrace/jars"


def fetch(line: str) -> pathlib.Path:
    """One artifact of a list of sums and paths, from the cache or the repository."""
    expected, path = line.split()
    file = CACHE / pathlib.PurePosixPath(path).name
    if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == expected:
        return file
    with urllib.request.urlopen(f"{REPOSITORY}/{path}", timeout=60) as answer:
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != expected:
        raise Failure(f"{REPOSITORY}/{path} is not what it was: its SHA-256 differs")
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(file)
    return file


class JvmServer(Server):
    """A server whose jars, with their sums, are listed in NAME.sha256."""
    packages = {"/usr/bin/java": "openjdk-17-jre-headless"}
    jars: list[str] = []

    def missing(self):
        missing = super().missing()
        try:
            CACHE.mkdir(parents=True, exist_ok=True)
            lines = (HERE / f"{self.name}.sha256").read_text(encoding="utf-8").splitlines()
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                self.jars = [str(file) for file in pool.map(fetch, lines)]
        except (OSError, urllib.error.URLError) as error:
            missing.append(f"the artifacts of {self.name} cannot be fetched from {REPOSITORY}: {error}")
        return missing

    def java(self, main: str, *arguments: str, properties: tuple[str, ...] = ()) -> list[str]:
        if not self.jars:
            self.missing()
        return ["java", "-Xmx256m", *properties, "-cp", ":".join([str(self.data / "conf"), *self.jars]), main, *arguments]


class Kafka(JvmServer):
    """One node, broker and controller (KRaft). Topics are made when they are first used."""
    name = "kafka"
    ports = ("port", "controller")

    def prepare(self):
        controller = self.state["ports"]["controller"]
        conf = self.data / "conf"
        conf.mkdir(exist_ok=True)
        (conf / "server.properties").write_text("\n".join([
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
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
    """Reads the binary log of MariaDB and writes the changes of the database `millrace` to Kafka, both of this folder.
    After a restart it goes on where it was."""
    name = "canal"
    after = ("mariadb", "kafka")
    ports = ("port", "metrics")
    topic = "millrace-config"

    def sql(self, text: str) -> str:
        done = subprocess.run(["mariadb", "--no-defaults", f"--socket={MariaDB(self.root).socket}", "--user=root", "--batch",
                               "--execute", text], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"canal: mariadb: {done.stderr.strip()}")
        return done.stdout

    def prepare(self):
        self.sql("CREATE USER IF NOT EXISTS canal@'127.0.0.1' IDENTIFIED VIA mysql_native_password USING PASSWORD('canal'); "
                 "GRANT SELECT, BINLOG MONITOR, REPLICATION SLAVE ON *.* TO canal@'127.0.0.1'")
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
            instance.substitute(port=MariaDB(self.root).port, topic=self.topic, folder=self.data / "data"), encoding="utf-8")
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
