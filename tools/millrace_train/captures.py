"""Features from captures, one folder a class, made by Millrace's own featurizer."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

from . import idx

PIPELINE = """\
[pipeline]
name = "features"

[stage.capture]
use  = "source-pcap"
file = "${FOLDER}"

[stage.sessions]
use     = "split-memory"
from    = "capture"
packets = 65535
delay   = "36500d"
idle    = "36500d"

[stage.features]
use         = "sink-dataset"
from        = "sessions"
path        = "${OUT}"
label       = "${LABEL}"
bytes       = "${BYTES}"
min_payload = 2
fragments   = false
"""


def find_host(given: str | None) -> str:
    root = pathlib.Path(__file__).resolve().parents[2]
    for candidate in (given, root / "build/release/bin/millrace", shutil.which("millrace")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    raise idx.DataError("the program millrace is not built; name it with --millrace PATH")


def read(folder: pathlib.Path, size: int, host: str, dev_share: float,
         seed: int) -> tuple[list[str], tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Class names, the train part and the dev part. The same image in two classes is left out."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if len(names) < 2:
        raise idx.DataError(f"{folder}: expected one folder a class, at least two")
    rows: dict[bytes, int] = {}
    ambiguous: set[bytes] = set()
    with tempfile.TemporaryDirectory() as work:
        pipeline = pathlib.Path(work, "features.toml")
        pipeline.write_text(PIPELINE, encoding="utf-8")
        for label, name in enumerate(names):
            out = pathlib.Path(work, str(label))
            command = [host, "run", str(pipeline), "--no-summary", "--var", f"FOLDER={folder / name}",
                       "--var", f"OUT={out}", "--var", f"LABEL={name}", "--var", f"BYTES={size}"]
            if subprocess.run(command, check=False).returncode != 0:
                raise idx.DataError(f"{folder / name}: millrace could not make features of it")
            images = idx.read(out / "images-idx3-ubyte", 3)
            for row in images.reshape(len(images), -1):
                key = row.tobytes()
                if rows.setdefault(key, label) != label:
                    ambiguous.add(key)
    print(f"{len(rows)} different sessions; {len(ambiguous)} are in more than one class and left out")
    kept = [(key, label) for key, label in rows.items() if key not in ambiguous]
    if not kept:
        raise idx.DataError(f"{folder}: no session with a payload")
    x = np.stack([np.frombuffer(key, np.uint8) for key, _ in kept])
    y = np.array([label for _, label in kept], np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    dev = order[: int(len(y) * dev_share)]
    train = order[len(dev):]
    return names, (x[train], y[train]), (x[dev], y[dev])
