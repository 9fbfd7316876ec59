"""Network segments of the test's own: a namespace with one interface each, the other end of which is here."""
from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess

import pytest


def need(*programs: str):
    if os.geteuid() != 0:
        pytest.skip("SKIPPED: network namespaces need root")
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"SKIPPED: not installed: {', '.join(missing)}")


def ip(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


class Segment:
    """`interface` (address `here`) leads to `far` in the namespace, which has the address `there`."""

    def __init__(self, number: int):
        unique = os.getpid() % 10000
        self.namespace = f"mr{unique}n{number}"
        self.interface = f"mr{unique}h{number}"
        self.far = f"mr{unique}f{number}"
        self.here, self.there = (f"10.{100 + number}.{unique % 256}.{host}" for host in (1, 2))
        made = ip("netns", "add", self.namespace)
        if made.returncode != 0:
            pytest.skip(f"SKIPPED: this machine makes no network namespace: {made.stderr.strip()}")
        self.processes: list[subprocess.Popen] = []
        for words in (f"link add {self.interface} type veth peer name {self.far} netns {self.namespace}",
                      f"addr add {self.here}/24 dev {self.interface}", f"link set {self.interface} up",
                      f"-n {self.namespace} addr add {self.there}/24 dev {self.far}",
                      f"-n {self.namespace} link set {self.far} up", f"-n {self.namespace} link set lo up"):
            done = ip(*words.split())
            assert done.returncode == 0, f"ip {words}: {done.stderr}"

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *ignored):
        for process in self.processes:
            process.kill()
            process.wait()
        ip("link", "del", self.interface)
        ip("netns", "del", self.namespace)

    @contextlib.contextmanager
    def resolver(self, address: str):
        """Programs inside the namespace ask the name server at `address`."""
        # ip-netns(8) puts what is here in the place of the files of /etc.
        folder = pathlib.Path("/etc/netns") / self.namespace
        folder.mkdir(parents=True)
        try:
            (folder / "resolv.conf").write_text(f"nameserver {address}\n", encoding="ascii")
            (folder / "nsswitch.conf").write_text("hosts: dns\n", encoding="ascii")
            yield
        finally:
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # others may have theirs there
                folder.parent.rmdir()

    def run(self, *command, **options) -> subprocess.CompletedProcess:
        """Inside the namespace, to its end."""
        return subprocess.run(["ip", "netns", "exec", self.namespace, *map(str, command)], capture_output=True, text=True,
                              check=True, timeout=300, **options)

    def start(self, *command, **options) -> subprocess.Popen:
        """Inside the namespace, until the end of the segment."""
        process = subprocess.Popen(["ip", "netns", "exec", self.namespace, *map(str, command)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, **options)
        self.processes.append(process)
        return process
