"""tools/evaluate on small data made here, and on the data set."""
from __future__ import annotations

import hashlib
import os
import pathlib
import re
import struct
import subprocess
import sys

import pytest

np = pytest.importorskip("numpy", reason="python3-numpy is not installed")
torch = pytest.importorskip("torch", reason="python3-torch is not installed")

SOURCE = pathlib.Path(os.environ.get("MILLRACE_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
SHARED = pathlib.Path(os.environ.get("MILLRACE_SHARED", SOURCE / "../shared")).resolve()


class FirstByte(torch.nn.Module):
    """Answers what the first byte says, surely unless it is above 9."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x[:, 0].long()
        answers = torch.nn.functional.one_hot(first % 10, 3).float()
        return answers * torch.where(first < 10, 10.0, 1.0).unsqueeze(1)


def evaluate(*arguments):
    return subprocess.run([sys.executable, "-B", SOURCE / "tools/evaluate", *map(str, arguments)],
                          capture_output=True, text=True, check=False)


def write_part(folder, name, y, first):
    x = np.zeros((len(y), 2, 2), np.uint8)
    x[:, 0, 0] = first
    (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, len(y), 2, 2) + x.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(y)) + bytes(y))


@pytest.fixture
def model(tmp_path):
    torch.jit.script(FirstByte()).save(str(tmp_path / "m.pt"))
    (tmp_path / "m.toml").write_text('name = "m"\nlabels = ["ant", "bee", "cat"]\nmin_confidence = 0.9\n'
                                     '[input]\nbytes = 4\ndtype = "uint8"\nshape = [4]\n')
    (tmp_path / "labels.txt").write_text("cat\nant\n")  # in another order than the card's
    return tmp_path / "m.pt"


def test_scores_are_counted_by_the_names_of_the_classes(model, tmp_path):
    # cat, cat, cat, ant, ant; the model answers cat, bee, cat (unsure), ant, cat.
    write_part(tmp_path, "dev", [0, 0, 0, 1, 1], [2, 1, 12, 0, 2])
    result = evaluate(model, "--idx", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.startswith(("ant", "cat", "bee"))}
    assert rows == {"ant": ["2", "1.0000", "0.5000", "0.6667"], "cat": ["3", "0.6667", "0.6667", "0.6667"]}
    assert "5 sessions of 2 classes (1 of the model's are not among them)" in result.stdout
    assert "accuracy 0.6000, macro F1 0.6667" in result.stdout
    assert "at min_confidence 0.9: 0.8000 answered, 0.5000 of these right" in result.stdout


def test_probabilities_are_taken_as_they_are(tmp_path):
    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(torch.nn.functional.one_hot(x[:, 0].long(), 3).float() * 100, 1)
    torch.jit.script(Sure()).save(str(tmp_path / "m.pt"))
    (tmp_path / "m.toml").write_text('labels = ["ant", "bee", "cat"]\nmin_confidence = 0.9\noutput = "probabilities"\n'
                                     '[input]\nbytes = 4\ndtype = "uint8"\nshape = [4]\n')
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    write_part(tmp_path, "dev", [0, 1], [0, 1])
    result = evaluate(tmp_path / "m.pt", "--idx", tmp_path)
    assert "at min_confidence 0.9: 1.0000 answered, 1.0000 of these right" in result.stdout, result.stderr


def test_a_model_that_is_not_the_cards_is_refused(model, tmp_path):
    write_part(tmp_path, "dev", [0], [0])
    card = (tmp_path / "m.toml").read_text()
    (tmp_path / "m.toml").write_text(f'sha256 = "{hashlib.sha256(model.read_bytes()).hexdigest()}"\n{card}')
    assert evaluate(model, "--idx", tmp_path).returncode == 0
    model.write_bytes(model.read_bytes() + b"x")
    result = evaluate(model, "--idx", tmp_path)
    assert result.returncode == 2 and "not the file that its card was written for" in result.stderr


def test_the_picture_is_a_png(model, tmp_path):
    pytest.importorskip("matplotlib", reason="python3-matplotlib is not installed")
    write_part(tmp_path, "dev", [0, 1], [2, 0])
    result = evaluate(model, "--idx", tmp_path, "--picture", tmp_path / "c.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_what_does_not_fit_is_named(model, tmp_path):
    write_part(tmp_path, "dev", [0], [0])
    (tmp_path / "labels.txt").write_text("dog\n")
    result = evaluate(model, "--idx", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "the model has no class dog; it has ant, bee, cat" in result.stderr
    result = evaluate(model, "--idx", tmp_path, "--part", "test")
    assert result.returncode == 2 and "test-images-idx3-ubyte" in result.stderr
    (tmp_path / "m.toml").write_text('labels = ["ant", "bee"]\n[input]\nbytes = 4\ndtype = "uint8"\nshape = [4]\n')
    (tmp_path / "labels.txt").write_text("ant\n")
    result = evaluate(model, "--idx", tmp_path)
    assert result.returncode == 2 and "3 outputs, but its card has 2 labels" in result.stderr
    model.write_bytes(b"no model")
    result = evaluate(model, "--idx", tmp_path)
    assert result.returncode == 2 and "m.pt: no TorchScript model" in result.stderr


def test_the_shipped_models_figures_are_the_cards(tmp_path):
    data = SHARED / "datasets/ustc-tfc2016"
    if not data.exists():
        pytest.skip(f"{data} is not there")
    for name in ("ustc-tfc2016", "ustc-tfc2016-fast"):
        card = (SOURCE / f"models/{name}.toml").read_text(encoding="utf-8")
        accuracy, macro_f1 = (re.search(rf"^{key} *= ([0-9.]+)", card, re.M).group(1) for key in ("accuracy", "macro_f1"))
        result = evaluate(SOURCE / f"models/{name}.pt", "--idx", data)
        assert result.returncode == 0, result.stderr
        assert f"accuracy {accuracy}, macro F1 {macro_f1}" in result.stdout
