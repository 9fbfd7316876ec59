"""Writes the small TorchScript models that the tests of model-torch load: make_models.py FOLDER"""
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn


class Known(nn.Module):
    """3 classes; the first of 8 bytes decides: 0, 1, 2 name the class, 255 gives no number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.uint8
        first = x[:, 0].long()
        logits = nn.functional.one_hot(first.clamp(0, 2), 3).float() * 10
        return torch.where((first == 255).unsqueeze(1), torch.full_like(logits, float("nan")), logits)


class Infinite(nn.Module):
    """3 classes; one logit is -inf (fine), and with a first byte of 1 another is +inf (not)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(x.size(0), 3)
        logits[:, 0] = float("-inf")
        logits[:, 1] = torch.where(x[:, 0] == 1, float("inf"), 2.0)
        return logits


class Linear(nn.Module):
    """The last layers are products of matrices over the batch."""

    def __init__(self, classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.float() / 255)


class Convolutions(nn.Module):
    """Bytes, one-dimensional convolutions, no product of matrices over the batch."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 16, 8, 4), nn.ReLU(), nn.Conv1d(16, 32, 5, 2), nn.ReLU())
        self.last = nn.Conv1d(32, 20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layers((x.float() / 255).unsqueeze(1)).mean(2, keepdim=True)
        return self.last(h).squeeze(2)


class LeNet(nn.Module):
    """The paper's input: float32 [N, 1, 28, 28] in 0..1."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32 and x.dim() == 4
        return self.layers(x)


class Scaled(nn.Module):
    """Gives its float input back: shows what scale and shape do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32 and x.dim() == 3 and x.size(1) == 2
        return x.flatten(1)


class Overwrites(nn.Module):
    """Normalises in place, in the memory that it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x[:, :3].float()


class Integers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3].long()


class Pair(nn.Module):
    def forward(self, x: torch.Tensor):
        return x[:, :3].float(), x


class Flat(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0].float()


class OneRow(nn.Module):
    """As a model is that was traced with one example and an assertion."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.size(0) == 1, "only one row"
        return x[:, :3].float()


class Dropout(nn.Module):
    """Saved while in training: its answers are only equal if it is not run like that."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x[:, :3].float())


class Ends(nn.Module):
    """3 classes; the first of 8 bytes decides, and what the last step makes of the logits varies."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.one_hot(x[:, 0].long() % 3, 3).float() * 100)


class Counts(nn.Module):
    """Remembers how often it was asked."""

    def __init__(self):
        super().__init__()
        self.register_buffer("asked", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return x[:, :3].float() + self.asked * 10


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.float())


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3].float() * float("nan")


def newer(old: Path, new: Path):
    """As a newer PyTorch writes it: with an operator that this one does not know."""
    with zipfile.ZipFile(old) as before, zipfile.ZipFile(new, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith(".py"):
                content = content.replace(b"torch.log_softmax(", b"torch.scaled_dot_product_attention(")
            if not name.endswith(".debug_pkl"):
                after.writestr(name, content)
        after.writestr(old.stem + "/byteorder", "little")


def odd_models(folder: Path):
    """Models with something wrong, and some that only look so."""
    examples = torch.arange(48, dtype=torch.uint8).reshape(6, 8)
    for name, last in {"softmax": nn.Softmax(1), "log-softmax": nn.LogSoftmax(1), "sigmoid": nn.Sigmoid()}.items():
        torch.jit.script(Ends(last).eval()).save(str(folder / f"{name}.pt"))
    for name, last in {"traced-dropout": nn.Dropout(0.2), "traced-batch-norm": nn.BatchNorm1d(3)}.items():
        torch.jit.trace(Ends(last).train(), examples, check_trace=False).save(str(folder / f"{name}.pt"))
    torch.jit.script(Counts().eval()).save(str(folder / "counts.pt"))
    torch.jit.script(Nothing().eval()).save(str(folder / "nothing.pt"))
    torch.jit.script(Halves().half().eval()).save(str(folder / "half.pt"))
    torch.save(Halves().state_dict(), str(folder / "state-dict.pt"))
    torch.save(Halves().state_dict(), str(folder / "old-pickle.pt"), _use_new_zipfile_serialization=False)
    torch.save(Halves(), str(folder / "module.pt"))
    with zipfile.ZipFile(folder / "exported.pt", "w") as archive:  # the records of a .pt2 of PyTorch 2.6
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.5")
    newer(folder / "log-softmax.pt", folder / "newer.pt")


def main():
    folder = Path(sys.argv[1])
    torch.manual_seed(1)
    models = {
        "known": Known(), "infinite": Infinite(), "linear": Linear(20), "narrow": Linear(10),
        "convolutions": Convolutions(), "lenet": LeNet(), "scaled": Scaled(),
        "overwrites": Overwrites(), "integers": Integers(), "pair": Pair(), "flat": Flat(),
        "one-row": OneRow()}
    for name, model in models.items():
        torch.jit.script(model.eval()).save(str(folder / f"{name}.pt"))
    torch.jit.script(Dropout().train()).save(str(folder / "dropout.pt"))

    odd_models(folder)

    # What Python says of the rows (i * 7 + j * 13) % 256, for comparison.
    rows = ((torch.arange(64).unsqueeze(1) * 7 + torch.arange(784) * 13) % 256).to(torch.uint8)
    with torch.no_grad():
        for name, given in {"linear": rows, "convolutions": rows,
                            "lenet": (rows.float() / 255).reshape(-1, 1, 28, 28)}.items():
            answer = torch.softmax(models[name](given), 1)
            (folder / f"{name}.expected").write_bytes(answer.numpy().tobytes())


main()
