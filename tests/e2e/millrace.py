"""Runs the real program for the end-to-end tests."""
from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

SOURCE = pathlib.Path(os.environ.get("MILLRACE_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", SOURCE / "build/release"))
SHARED = pathlib.Path(os.environ.get("MILLRACE_SHARED", SOURCE / "../shared")).resolve()
PROGRAM = BUILD / "bin/millrace"
SAMPLE = SOURCE / "samples/sample.pcap"
HAS_MODEL = (BUILD / "lib/millrace/plugins/model-torch.so").exists()


def run(*arguments: str, stdin=None, env: dict | None = None, cwd=SOURCE, timeout: float = 300):
    """Returns the finished process with its text."""
    return subprocess.run([str(PROGRAM), *map(str, arguments)], stdin=stdin, capture_output=True, text=True,
                          cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout, check=False)


class Running:
    """A `millrace run` that goes on; its log goes to a file."""

    def __init__(self, log: pathlib.Path, *arguments, prefix: tuple[str, ...] = (), **options):
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen([*prefix, PROGRAM, "run", *map(str, arguments)], cwd=SOURCE, stderr=file,
                                            stdout=file, **options)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, patience: float = 60, count: int = 1) -> re.Match:
        """The `count`-th match of `pattern` in the log."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = list(re.finditer(pattern, self.text()))
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.text()}"
            time.sleep(0.02)
        raise AssertionError(f"no '{pattern}' within {patience} s:\n{self.text()}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def drain(self, patience: float = 60) -> str:
        """Ends it by SIGTERM; what it said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(patience) == 0, self.text()
        assert "books do not balance" not in self.text()
        return self.text()


def health(url: str) -> tuple[int, dict]:
    """Status and answer of GET /health; `url` is what --admin logs."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def until(condition, patience: float, what: str):
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.05)


def pipeline(folder: pathlib.Path, *stages: str) -> pathlib.Path:
    path = folder / "pipeline.toml"
    path.write_text("\n".join(stages), encoding="utf-8")
    return path


CAPTURE = """
[stage.capture]
use  = "source-pcap"
file = "${CAPTURE}"
"""
SESSIONS = """
[stage.sessions]
use  = "split-memory"
from = "capture"
"""
PRINT = """
[stage.print]
use  = "sink-file"
from = "sessions"
path = "-"
"""
