"""tools/train on small data made here, and the shipped models."""
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
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", SOURCE / "build/release"))
SHARED = pathlib.Path(os.environ.get("MILLRACE_SHARED", SOURCE / "../shared")).resolve()
sys.path.insert(0, str(SOURCE / "tools"))
from millrace_train import idx, nets, training  # noqa: E402


def train(*arguments):
    return subprocess.run([sys.executable, "-B", SOURCE / "tools/train", *map(str, arguments)],
                          capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path):
    """Two classes that the first bytes tell apart."""
    random = np.random.default_rng(7)
    for part, rows in (("train", 120), ("dev", 40)):
        y = random.integers(0, 2, rows).astype(np.uint8)
        x = random.integers(0, 256, (rows, 28, 28)).astype(np.uint8)
        x[:, 0, :16] = np.where(y == 1, 200, 20)[:, None]
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, rows, 28, 28) + x.tobytes())
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, rows) + y.tobytes())
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    return tmp_path


SHIPPED = ("ustc-tfc2016", "ustc-tfc2016-fast")
SMALL = ("--epochs", 2, "--width", 8, "--last", 8, "--seed", 3)


@pytest.mark.parametrize("arch", ("bytes", "ngrams"))
def test_writes_model_and_card_and_the_same_again(data, arch):
    results = []
    for name in ("one.pt", "two.pt"):
        result = train("--idx", data, "--out", data / name, "--arch", arch, *SMALL)
        assert result.returncode == 0, result.stderr
        model = torch.jit.load(str(data / name))
        results.append(model(torch.arange(784, dtype=torch.uint8).repeat(3, 1)))
    assert results[0].shape == (3, 2)
    assert torch.equal(results[0], results[1])
    card = (data / "one.toml").read_text()
    assert 'labels  = ["cat", "dog"]' in card
    assert re.search(r"^bytes +\= 784$", card, re.M)
    digest = hashlib.sha256((data / "one.pt").read_bytes()).hexdigest()
    assert f'sha256  = "{digest}"' in card
    assert f'version = "{digest[:8]}"' in card  # so that a model that was trained anew has another one


def test_data_that_does_not_fit_is_named(data):
    (data / "labels.txt").write_text("cat\n")
    result = train("--idx", data, "--out", data / "x.pt", *SMALL)
    assert result.returncode == 2
    assert "train-labels-idx1-ubyte: label 1, but labels.txt names 1 classes" in result.stderr
    (data / "labels.txt").write_text("cat\ndog\n")
    (data / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(12) + b"x")
    result = train("--idx", data, "--out", data / "x.pt", *SMALL)
    assert result.returncode == 2
    assert "expected 0 bytes for the shape (0, 0, 0), found 1" in result.stderr


def test_an_archive_that_does_not_fit_is_named(tmp_path):
    x, y = np.zeros((4, 9), np.uint8), np.array([0, 1, 0, 2])
    labels = np.array(["cat", "dog"])
    for arrays, problem in (
            ({"train_x": x, "train_y": y}, "'labels' is missing"),
            ({"labels": labels}, "train_x and train_y are not there"),
            ({"labels": labels, "train_x": x, "train_y": y}, "train_y goes from 0 to 2, but labels names 2 classes"),
            ({"labels": labels, "train_x": x.astype(float), "train_y": y}, "found float64 [4, 9] and int64 [4]"),
            ({"labels": np.array([None])}, "without pickled objects")):
        np.savez(tmp_path / "d.npz", **arrays)
        result = train("--npz", tmp_path / "d.npz", "--out", tmp_path / "x.pt", *SMALL)
        assert result.returncode == 2
        assert f"{tmp_path}/d.npz: " in result.stderr and problem in result.stderr
    np.savez(tmp_path / "d.npz", labels=labels, train_x=x[:2], train_y=y[:2])
    result = train("--npz", tmp_path / "d.npz", "--out", tmp_path / "x.pt", *SMALL)
    assert result.returncode == 2 and "2 sessions of 2 classes are too few" in result.stderr
    (tmp_path / "d.npz").write_bytes(b"PK no archive")
    result = train("--npz", tmp_path / "d.npz", "--out", tmp_path / "x.pt", *SMALL)
    assert result.returncode == 2 and "expected a NumPy archive" in result.stderr


def test_trains_from_captures_through_the_featurizer(tmp_path):
    program = BUILD / "bin/millrace"
    if not program.exists():
        pytest.skip(f"{program} is not built")
    sample = (SOURCE / "samples/sample.pcap").read_bytes()
    cut, at = 24, 24
    while at < len(sample) // 2:
        at += 16 + struct.unpack_from("<I", sample, at + 8)[0]
        cut = at
    for name, content in (("first", sample[:cut]), ("second", sample[:24] + sample[cut:])):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.pcap").write_bytes(content)
    result = train("--captures", tmp_path / "data", "--out", tmp_path / "m.pt", "--millrace", program, *SMALL)
    assert result.returncode == 0, result.stderr
    assert 'labels  = ["first", "second"]' in (tmp_path / "m.toml").read_text()


def test_the_fast_gradient_is_torchs_own():
    generator = torch.Generator().manual_seed(5)
    buckets = nets.ngram_buckets(torch.randint(0, 256, (3, 100), dtype=torch.uint8, generator=generator), 16, 10)
    assert buckets.shape == (3 * 7, 4 * 16)  # 100 bytes are filled up to 7 windows
    assert 0 <= int(buckets.min()) and int(buckets.max()) < 1 << 10
    weight = torch.randn(len(buckets), 32, generator=generator)
    gradients = []
    for bag_sum in (nets.BagSum.apply, lambda b, t: torch.nn.functional.embedding_bag(b, t, mode="sum")):
        table = torch.zeros(1 << 10, 32, requires_grad=True)
        (bag_sum(buckets, table) * weight).sum().backward()
        gradients.append(table.grad)
    assert gradients[1].abs().max() > 1
    assert torch.allclose(*gradients, atol=1e-5)


def test_folding_changes_nothing():
    torch.manual_seed(2)
    net = nets.NgramNet(5)
    rows = torch.randint(0, 256, (64, 784), dtype=torch.uint8)
    for _ in range(3):
        net(rows)  # so that the norms have something to fold
    net.eval()
    with torch.inference_mode():
        assert torch.allclose(net(rows) / 0.5, net.folded(0.5).eval()(rows), atol=1e-5)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_card_has_the_checksum_of_its_model(name):
    card = (SOURCE / f"models/{name}.toml").read_text(encoding="utf-8")
    assert f'"{hashlib.sha256((SOURCE / f"models/{name}.pt").read_bytes()).hexdigest()}"' in card


def card_value(model: str, name: str) -> float:
    card = (SOURCE / f"models/{model}.toml").read_text(encoding="utf-8")
    return float(re.search(rf"^{name} *= *([0-9.]+)", card, re.M).group(1))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_gives_the_same_for_a_row_alone_and_among_others(name):
    torch.set_num_threads(1)
    model = torch.jit.load(str(SOURCE / f"models/{name}.pt"))
    rows = torch.randint(0, 256, (64, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = model(rows)
        assert together.shape == (64, 20)
        # As the plugin asks: always as many rows, the missing ones zero.
        for size in (1, 7, 16):
            for begin in range(0, 64, size):
                part = torch.zeros_like(rows)
                some = rows[begin:begin + size]
                part[:len(some)] = some
                assert torch.equal(model(part)[:len(some)], together[begin:begin + size]), (size, begin)
        # Nor does it matter where in the batch a row is.
        assert torch.equal(model(rows.roll(5, 0)).roll(-5, 0), together)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_is_as_good_as_its_card_says(name):
    folder = SHARED / "datasets/ustc-tfc2016"
    if not folder.is_dir():
        pytest.skip(f"no data set in {folder}")
    labels = idx.read_labels(folder / "labels.txt")
    x, y = idx.read_part(folder, "dev", len(labels))
    model = torch.jit.load(str(SOURCE / f"models/{name}.pt"))
    predicted = training.logits_of(model, torch.from_numpy(x.copy())).argmax(1).numpy()
    accuracy, macro_f1, _ = training.scores(y, predicted, len(labels))
    assert macro_f1 == pytest.approx(card_value(name, "macro_f1"), abs=2e-3)
    assert accuracy == pytest.approx(card_value(name, "accuracy"), abs=2e-3)
