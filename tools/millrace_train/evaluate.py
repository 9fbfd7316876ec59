"""Command line of tools/evaluate."""
from __future__ import annotations

import argparse
import hashlib
import pathlib
import sys
import tomllib

import numpy as np
import torch
from torch.nn import functional as F

from . import captures, idx, npz, training


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/evaluate",
        description="Print a model's accuracy, macro F1 and scores of each class on labelled sessions.")
    parser.add_argument("model", type=pathlib.Path, metavar="NAME.pt", help="its card is NAME.toml beside it")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--idx", type=pathlib.Path, metavar="DIR",
                        help="folder with PART-images-idx3-ubyte[.gz], PART-labels-idx1-ubyte[.gz] and labels.txt")
    source.add_argument("--captures", type=pathlib.Path, metavar="DIR",
                        help="folder with one folder of capture files for each class")
    source.add_argument("--npz", type=pathlib.Path, metavar="FILE",
                        help="NumPy archive with PART_x, PART_y and labels")
    parser.add_argument("--part", default="dev", help="with --idx and --npz: the part to ask for")
    parser.add_argument("--picture", type=pathlib.Path, metavar="FILE.png", help="write the confusion matrix there")
    parser.add_argument("--millrace", help="the host program, for --captures")
    return parser.parse_args()


def read_card(model: pathlib.Path) -> dict:
    path = model.with_suffix(".toml")
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise idx.DataError(f"{path}: {error}") from error
    for key in ("labels", "input"):
        if key not in card:
            raise idx.DataError(f"{path}: '{key}' is missing")
    return card


def load(args: argparse.Namespace, card: dict) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and for each the place of its class in the card."""
    if args.captures:
        names, (x, y), _ = captures.read(args.captures, card["input"]["bytes"], captures.find_host(args.millrace), 0, 1)
    elif args.npz:
        names, part = npz.read(args.npz, args.part)
        if part is None:
            raise idx.DataError(f"{args.npz}: {args.part}_x and {args.part}_y are not there")
        x, y = part
    else:
        names = idx.read_labels(args.idx / "labels.txt")
        part = idx.read_part(args.idx, args.part, len(names))
        if part is None:
            raise idx.DataError(f"{args.idx}: {args.part}-images-idx3-ubyte and {args.part}-labels-idx1-ubyte are not there")
        x, y = part
    if not len(y):
        raise idx.DataError("there is no session to ask for")
    if x.shape[1] != card["input"]["bytes"]:
        raise idx.DataError(f"sessions of {x.shape[1]} bytes; the card says {card['input']['bytes']}")
    present = sorted({int(i) for i in y})
    if unknown := [names[i] for i in present if names[i] not in card["labels"]]:
        raise idx.DataError(f"the model has no class {', '.join(unknown)}; it has {', '.join(card['labels'])}")
    places = np.zeros(len(names), np.int64)
    for i in present:
        places[i] = card["labels"].index(names[i])
    return x, places[y]


def probabilities_of(model: pathlib.Path, card: dict, rows: np.ndarray) -> np.ndarray:
    try:
        if "sha256" in card and hashlib.sha256(model.read_bytes()).hexdigest() != card["sha256"].lower():
            raise idx.DataError(f"{model}: not the file that its card was written for, or damaged (sha256 in the card)")
        net = torch.jit.load(str(model))
    except (OSError, RuntimeError, ValueError) as error:
        raise idx.DataError(f"{model}: no TorchScript model: {str(error).splitlines()[0]}") from error
    x = torch.from_numpy(rows.copy()).reshape(len(rows), *card["input"]["shape"])
    if card["input"]["dtype"] == "float32":
        x = x.float() * card["input"].get("scale", 1.0)
    given = training.logits_of(net, x)
    if given.shape[1] != len(card["labels"]):
        raise idx.DataError(f"{model}: {given.shape[1]} outputs, but its card has {len(card['labels'])} labels")
    return (given if card.get("output") == "probabilities" else F.softmax(given, 1)).numpy()


def confusion(y: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """A row for each true class, a column for each answer."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def report(labels: list[str], y: np.ndarray, probabilities: np.ndarray, least: float) -> None:
    predicted = probabilities.argmax(1)
    matrix = confusion(y, predicted, len(labels))
    present = np.flatnonzero(matrix.sum(1))
    _, _, f1 = training.scores(y, predicted, len(labels))
    width = max(len(labels[i]) for i in present)
    print(f"{'class':<{width}}  sessions  precision  recall      F1")
    for i in present:
        right, asked, answered = matrix[i, i], matrix[i].sum(), matrix[:, i].sum()
        print(f"{labels[i]:<{width}}  {asked:8}  {share(right, answered):9.4f}  {share(right, asked):6.4f}  {f1[i]:6.4f}")
    missing = len(labels) - len(present)
    print(f"\n{len(y)} sessions of {len(present)} classes" + (f" ({missing} of the model's are not among them)" if missing else ""))
    print(f"accuracy {share(matrix.trace(), len(y)):.4f}, macro F1 {np.mean([f1[i] for i in present]):.4f}")
    sure = probabilities.max(1) >= least
    print(f"at min_confidence {least:g}: {share(sure.sum(), len(y)):.4f} answered, "
          f"{share((predicted[sure] == y[sure]).sum(), sure.sum()):.4f} of these right")


def draw(path: pathlib.Path, labels: list[str], matrix: np.ndarray, title: str) -> None:
    try:
        import matplotlib
    except ImportError as error:
        raise idx.DataError("--picture needs Debian's package python3-matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.0, 0.45 * len(labels) + 2)
    figure, axes = pyplot.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(matrix):
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=7,
                  color="white" if shares[row, column] > 0.5 else "black")
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answer", ylabel="true class", title=title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    card = read_card(args.model)
    labels = card["labels"]
    x, y = load(args, card)
    probabilities = probabilities_of(args.model, card, x)
    report(labels, y, probabilities, card.get("min_confidence", 0.0))
    if args.picture:
        draw(args.picture, labels, confusion(y, probabilities.argmax(1), len(labels)), card.get("name", args.model.stem))
        print(f"written: {args.picture}")


def main() -> int:
    try:
        run(arguments())
    except idx.DataError as error:
        print(f"tools/evaluate: {error}", file=sys.stderr)
        return 2
    return 0
