"""Models that are not what they seem, and rows that another model has labelled."""
from __future__ import annotations

import pathlib
import shutil
import sqlite3
import subprocess

import pytest
from millrace import CAPTURE, HAS_MODEL, SAMPLE, SESSIONS, SOURCE, Running, pipeline, run

pytestmark = pytest.mark.skipif(not HAS_MODEL, reason="model-torch was not built: libtorch-dev is not installed")
MODELS = {"fast": SOURCE / "models/ustc-tfc2016-fast.pt", "other": SOURCE / "models/ustc-tfc2016.pt"}
MODEL = """
[stage.model]
use   = "model-torch"
from  = "sessions"
model = "${MODEL}"
"""
STORE = """
[stage.store]
use  = "sink-sqlite"
from = "model"
path = "${DATABASE}"
"""


def classify(folder: pathlib.Path, model: pathlib.Path, *more: str):
    file = pipeline(folder, CAPTURE, SESSIONS, MODEL, STORE)
    return run("run", file, "--var", f"CAPTURE={SAMPLE}", "--var", f"MODEL={model}",
               "--var", f"DATABASE={folder / 'sessions.db'}", *more)


def rows(folder: pathlib.Path) -> dict[str, int]:
    with sqlite3.connect(folder / "sessions.db") as database:
        return dict(database.execute("SELECT model, count(*) FROM sessions GROUP BY model"))


def test_a_new_model_on_the_same_database_gives_the_new_labels_and_says_so(tmp_path):
    assert classify(tmp_path, MODELS["fast"]).returncode == 0
    before = rows(tmp_path)
    assert list(before) == ["ustc-tfc2016-fast"]
    count = before["ustc-tfc2016-fast"]
    result = classify(tmp_path, MODELS["other"])
    assert result.returncode == 0, result.stderr
    assert rows(tmp_path) == {"ustc-tfc2016": count}
    assert (f"{count} sessions had a label of the model 'ustc-tfc2016-fast' version '1': now that of the model "
            "'ustc-tfc2016' version '1'") in result.stderr
    # The same model again: nothing to say, nothing changed.
    result = classify(tmp_path, MODELS["other"])
    assert "had a label" not in result.stderr
    result = classify(tmp_path, MODELS["fast"], "--set", "store.on_existing=keep")
    assert rows(tmp_path) == {"ustc-tfc2016": count}
    assert f"{count} sessions already had a label of the model 'ustc-tfc2016' version '1', which stays" in result.stderr


@pytest.mark.parametrize("checksum", (True, False))
def test_a_damaged_model_is_refused(tmp_path, checksum):
    damaged = bytearray(MODELS["fast"].read_bytes())
    middle = len(damaged) // 2
    damaged[middle:middle + 65536] = b"A" * 65536
    (tmp_path / "m.pt").write_bytes(damaged)
    card = MODELS["fast"].with_suffix(".toml").read_text(encoding="utf-8")
    lines = [line for line in card.splitlines() if checksum or not line.startswith("sha256")]
    (tmp_path / "m.toml").write_text("\n".join(lines), encoding="utf-8")
    result = classify(tmp_path, tmp_path / "m.pt")
    assert result.returncode == 2
    assert "it is damaged" in result.stderr
    assert not (tmp_path / "sessions.db").exists() or rows(tmp_path) == {}


def test_a_model_that_never_answers_is_named(tmp_path):
    (tmp_path / "make.py").write_text("""
import sys, torch
class Endless(torch.nn.Module):
    def forward(self, x):
        while bool((x.float().sum() >= 0)):
            x = x * 1
        return x[:, :2].float()
torch.jit.script(Endless().eval()).save(sys.argv[1])
""", encoding="utf-8")
    made = subprocess.run(["/usr/bin/python3", tmp_path / "make.py", tmp_path / "m.pt"], capture_output=True, text=True,
                          check=False)
    if "No module named 'torch'" in made.stderr:
        pytest.skip("python3-torch is not installed")
    assert made.returncode == 0, made.stderr
    shutil.copy(MODELS["fast"].with_suffix(".toml"), tmp_path / "m.toml")
    card = (tmp_path / "m.toml").read_text(encoding="utf-8")
    (tmp_path / "m.toml").write_text("\n".join(line for line in card.splitlines() if not line.startswith("sha256")),
                                     encoding="utf-8")
    file = pipeline(tmp_path, CAPTURE, SESSIONS, MODEL, STORE)
    running = Running(tmp_path / "log", file, "--var", f"CAPTURE={SAMPLE}", "--var", f"MODEL={tmp_path / 'm.pt'}",
                      "--var", f"DATABASE={tmp_path / 'sessions.db'}")
    try:
        running.wait_for(r"model: still waiting for the first answers of '\S*m\.pt'")
        running.process.terminate()
        running.process.wait(30)
    finally:
        running.kill()
