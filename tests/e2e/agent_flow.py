"""Agents as processes: their configuration in ZooKeeper, their captures on segments of the test's own."""
from __future__ import annotations

import json
import pathlib
import re

import pytest
from millrace import BUILD, SOURCE, Running, pipeline, until

kazoo = pytest.importorskip("kazoo", reason="SKIPPED: python3-kazoo is not installed")
pytest.importorskip("kazoo.client")

AGENT = SOURCE / "pipelines/agent.toml"
RECEIVER = """
[stage.receive]
use    = "source-http"
listen = "127.0.0.1:{port}"
[stage.keep]
use  = "sink-pcap"
from = "receive"
path = "{path}"
"""


def need_plugins(*names: str):
    missing = [name for name in names if not (BUILD / f"lib/millrace/plugins/{name}.so").exists()]
    if missing:
        pytest.skip(f"not built, a library is not installed: {', '.join(missing)}")


class ZooKeeper:
    """What agents read and tell, as another client of the ensemble sees it."""

    def __init__(self, address: str):
        self.client = kazoo.client.KazooClient(hosts=address, connection_retry={"max_tries": -1}, command_retry={"max_tries": -1})
        self.client.start(timeout=60)

    def configure(self, agent: str, **values: str):
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.write(agent, text)

    def write(self, agent: str, text: str) -> int:
        """The generation that it makes."""
        path = f"/millrace/agents/{agent}"
        if self.client.exists(path):
            self.client.set(path, text.encode())
        else:
            self.client.create(path, text.encode(), makepath=True)
        return self.client.exists(path).mzxid

    def status(self, agent: str) -> dict | None:
        try:
            return json.loads(self.client.get(f"/millrace/status/{agent}")[0])
        except kazoo.exceptions.NoNodeError:
            return None

    def wait_for(self, agent: str, holds, patience: float = 60, what: str = "a status") -> dict:
        found = {}

        def looks_right():
            found["status"] = self.status(agent)
            return found["status"] is not None and holds(found["status"])
        try:
            until(looks_right, patience, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {found['status']}") from None
        return found["status"]

    def stop(self):
        self.client.stop()
        self.client.close()


def counted(status: dict, stage: str, name: str = "out") -> int:
    """A number of a stage in a status's counters."""
    for one in (status.get("counters") or {}).get("stages", []):
        if one["stage"] == stage:
            return one[name] if name in one else one["counters"].get(name, 0)
    return 0


class Agent(Running):
    """pipelines/agent.toml, for real."""

    def __init__(self, folder: pathlib.Path, name: str, zookeeper: str, *arguments, **settings):
        command = [AGENT, "--var", f"AGENT={name}", "--var", f"ZOOKEEPER={zookeeper}", "--var", f"SPOOL={folder / name}.spool"]
        for key, value in settings.items():
            command += ["--set", f"{key.replace('__', '.')}={value}"]
        super().__init__(folder / f"{name}.log", *command, *arguments)


class Receiver(Running):
    """Takes uploads and counts their packets."""

    def __init__(self, folder: pathlib.Path, name: str, port: int = 0):
        place = folder / name
        place.mkdir()
        super().__init__(folder / f"{name}.log", pipeline(place, RECEIVER.format(port=port, path=place / "received.pcap")))
        self.url = self.wait_for(r"listening on (http://\S+)").group(1)
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self) -> int:
        """The packets that it has taken."""
        found = re.search(r"^receive: .*?packets (\d+)", self.drain(), re.M)
        return int(found.group(1)) if found else 0

