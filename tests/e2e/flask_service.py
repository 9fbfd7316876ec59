"""The example service of examples/flask-model, under gunicorn."""
from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

from millrace import SOURCE

FOLDER = SOURCE / "examples/flask-model"
# One thread for each of the processes that ask a model, on every side.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def missing() -> list[str]:
    """The packages that the service lacks here."""
    packages = {"flask": "python3-flask", "torch": "python3-torch", "numpy": "python3-numpy"}
    lacking = [package for name, package in packages.items() if importlib.util.find_spec(name) is None]
    return lacking + ([] if shutil.which("gunicorn") else ["gunicorn"])


class Service:
    """Listens on `port` of 127.0.0.1, or on one of its own, and is ready."""

    def __init__(self, folder: pathlib.Path, model: pathlib.Path, port: int = 0, workers: int = 1, patience: float = 120):
        self.log = folder / "gunicorn.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["gunicorn", "--pythonpath", str(FOLDER), "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread",
                 "--threads", "1", "--workers", str(workers), "--timeout", "120", "service:app"],
                stdout=log, stderr=log, cwd=folder, env={**os.environ, **ONE_THREAD, "MODEL": str(model)})
        self.url = ""
        end = time.monotonic() + patience
        while not self._ready():
            text = self.log.read_text(encoding="utf-8")
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the service did not start:\n{text}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        found = re.search(r"Listening at: (http://\S+)", self.log.read_text(encoding="utf-8"))
        if not found:
            return False
        self.url = found.group(1)
        try:
            # Straight to it, whatever proxy the environment names.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return opener.open(self.url + "/health", timeout=5).status == 200
        except OSError:
            return False  # a worker is still loading the model

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
