"""Runs the real program for the end-to-end tests."""
from __future__ import annotations

import os
import pathlib
import subprocess

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
