"""Features from captures, one folder a class, made by pipelines/dataset.toml."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

from . import idx

ROOT = pathlib.Path(__file__).resolve().parents[2]


def find_host(given: str | None) -> str:
    for candidate in (given, ROOT / "build/release/bin/millrace", shutil.which("millrace")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    raise idx.DataError("the program millrace is not built; name it with --millrace PATH")


def read(folder: pathlib.Path, size: int, host: str, dev_share: float,
         seed: int) -> tuple[list[str], tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Class names, the train part and the dev part (without rows if dev_share is 0)."""
    if not folder.is_dir() or sum(entry.is_dir() for entry in folder.iterdir()) < 2:
        raise idx.DataError(f"{folder}: expected one folder a class, at least two")
    with tempfile.TemporaryDirectory() as work:
        out = pathlib.Path(work)
        command = [host, "run", str(ROOT / "pipelines/dataset.toml"), "--var", f"CAPTURES={folder}",
                   "--var", f"OUT={out}", "--set", f"dataset.bytes={size}",
                   "--set", f"dataset.dev_share={dev_share}", "--set", f"dataset.seed={seed}"]
        if subprocess.run(command, check=False).returncode != 0:
            raise idx.DataError(f"{folder}: millrace could not make features of it")
        if not (out / "labels.txt").stat().st_size:
            raise idx.DataError(f"{folder}: no session with a payload")
        names = idx.read_labels(out / "labels.txt")
        train = idx.read_part(out, "train", len(names))
        dev = idx.read_part(out, "dev", len(names))
    return names, train, dev or (np.zeros((0, size), np.uint8), np.zeros(0, np.int64))
