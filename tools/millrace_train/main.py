"""Command line of tools/train."""
from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import random
import sys

import numpy as np
import torch
from torch.nn import functional as F

from . import captures, idx, nets, npz, training


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/train", description="Train a session classifier; writes NAME.pt and its card NAME.toml.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--idx", type=pathlib.Path, metavar="DIR",
                        help="folder with train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], labels.txt "
                             "and the same for dev")
    source.add_argument("--npz", type=pathlib.Path, metavar="FILE",
                        help="NumPy archive with train_x, train_y, labels, and dev_x, dev_y")
    source.add_argument("--captures", type=pathlib.Path, metavar="DIR",
                        help="folder with one folder of capture files for each class")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="NAME.pt")
    parser.add_argument("--name", help="the model's name (default: from --out)")
    parser.add_argument("--model-version", help="default: the first 8 digits of the file's SHA-256, so that a model "
                        "that was trained anew has another one")
    parser.add_argument("--about", default="")
    parser.add_argument("--arch", choices=("bytes", "ngrams", "lenet"), default="bytes",
                        help="bytes: convolutions over embedded bytes; ngrams: hashed byte n-grams, several times "
                             "faster; lenet: like the paper's, for comparison")
    parser.add_argument("--width", type=int, default=64,
                        help="channels of the first two layers (bytes), of the convolution (ngrams)")
    parser.add_argument("--last", type=int, default=128, help="channels of the third layer (bytes)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--batch", type=int, default=64, help="sessions of a training step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dev-share", type=float, default=0.2, help="part kept for dev, with --captures or where the data has none")
    parser.add_argument("--bytes", type=int, default=784, help="with --captures: bytes of a session")
    parser.add_argument("--right", type=float, default=0.99,
                        help="min_confidence is the lowest tried threshold, at least --least-confidence, above "
                             "which so many of the answered dev sessions are right")
    parser.add_argument("--least-confidence", type=float, default=0.9)
    parser.add_argument("--baseline", type=float, help="macro F1 of a baseline on the same dev part, for the card")
    parser.add_argument("--millrace", help="the host program, for --captures")
    return parser.parse_args()


def load(args: argparse.Namespace):
    if args.captures:
        return captures.read(args.captures, args.bytes, captures.find_host(args.millrace), args.dev_share, args.seed)
    if args.npz:
        labels, train = npz.read(args.npz, "train")
        dev = npz.read(args.npz, "dev")[1]
    else:
        labels = idx.read_labels(args.idx / "labels.txt")
        train, dev = (idx.read_part(args.idx, part, len(labels)) for part in ("train", "dev"))
    if train is None:
        missing = "train_x and train_y" if args.npz else "train-images-idx3-ubyte and train-labels-idx1-ubyte"
        raise idx.DataError(f"{args.npz or args.idx}: {missing} are not there")
    if dev is None:
        order = np.random.default_rng(args.seed).permutation(len(train[1]))
        cut = int(len(order) * args.dev_share)
        dev = (train[0][order[:cut]], train[1][order[:cut]])
        train = (train[0][order[cut:]], train[1][order[cut:]])
    return labels, train, dev


def make_net(args: argparse.Namespace, classes: int, size: int) -> torch.nn.Module:
    if args.arch == "lenet":
        return nets.LeNet(classes, int(size ** 0.5))
    if args.arch == "ngrams":
        return nets.NgramNet(classes, args.width)
    return nets.ByteNet(classes, args.width, args.last)


def card(args: argparse.Namespace, labels: list[str], size: int, rows: int, figures: dict, sha256: str) -> str:
    text = json.dumps
    lines = [
        f"name    = {text(args.name or args.out.stem)}",
        f"version = {text(args.model_version or sha256[:8])}",
        f"about   = {text(args.about)}",
        f"labels  = {text(labels)}",
        f"min_confidence = {figures['min_confidence']}  # below it the label is \"unknown\"",
        f"sha256  = {text(sha256)}  # of the .pt file",
        "", "[input]",
        f"bytes       = {size}",
        'layer       = "l7"', 'dtype       = "uint8"', f"shape       = [{size}]", "padding     = 0",
        "min_payload = 2      # a payload of one byte is a TCP keep-alive", "fragments   = false",
        "", "[training]",
        f"sessions = {rows}",
        f"seed     = {args.seed}", f"epochs   = {args.epochs}", f"arch     = {text(args.arch)}", f"torch    = {text(torch.__version__)}",
        "", "[accuracy]  # on the dev part",
        f"sessions = {figures['dev_rows']}",
        f"accuracy = {figures['accuracy']:.4f}", f"macro_f1 = {figures['macro_f1']:.4f}",
    ]
    if args.baseline is not None:
        lines.append(f"baseline_macro_f1 = {args.baseline:.4f}  # LeNet-5 like, same data")
    lines += ["", "[accuracy.f1]"]
    lines += [f"{text(name)} = {value:.4f}" for name, value in zip(labels, figures["f1"])]
    lines += ["", "[calibration]  # dev sessions answered at a threshold, and how many of the answers are right",
              f"temperature = {figures['temperature']:.2f}  # already in the model"]
    for row in figures["thresholds"]:
        lines.append(f"[[calibration.threshold]]\nmin_confidence = {row['threshold']}\n"
                     f"answered = {row['answered']:.4f}\nright = {row['right']:.4f}")
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    random.seed(args.seed)
    np.random.seed(args.seed)
    labels, (train_x, train_y), (dev_x, dev_y) = load(args)
    if not len(dev_y) or len(labels) < 2:
        raise idx.DataError(f"{len(train_y)} sessions of {len(labels)} classes are too few: expected two classes at "
                            "least, and for dev one session at least")
    size = train_x.shape[1]
    x, y = torch.from_numpy(train_x.copy()), torch.from_numpy(train_y.copy())
    dev, dev_labels = torch.from_numpy(dev_x.copy()), torch.from_numpy(dev_y.copy())
    print(f"{len(x)} sessions to train on, {len(dev)} for dev, {len(labels)} classes")
    torch.manual_seed(args.seed)
    net = training.train(make_net(args, len(labels), size), x, y, args.epochs, args.seed, args.rate,
                         args.batch)
    logits = training.logits_of(net, dev)
    temperature = training.temperature_of(logits, dev_labels) if len(dev) else 1.0
    exported = net if args.arch == "lenet" else net.folded(temperature).eval()
    final = training.logits_of(exported, dev)
    accuracy, macro_f1, f1 = training.scores(dev_y, final.argmax(1).numpy(), len(labels))
    table = training.thresholds(F.softmax(final, 1).numpy(), dev_y)
    fitting = [row["threshold"] for row in table
               if row["threshold"] >= args.least_confidence and row["right"] >= args.right]
    figures = {"accuracy": accuracy, "macro_f1": macro_f1, "f1": f1, "temperature": temperature,
               "thresholds": table, "dev_rows": len(dev_y), "min_confidence": fitting[0] if fitting else 0.99}
    with torch.no_grad():
        script = torch.jit.freeze(torch.jit.script(exported))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    script.save(str(args.out))
    sha256 = hashlib.sha256(args.out.read_bytes()).hexdigest()
    args.out.with_suffix(".toml").write_text(card(args, labels, size, len(train_y), figures, sha256), encoding="utf-8")
    print(f"dev: accuracy {accuracy:.4f}, macro F1 {macro_f1:.4f}, min_confidence {figures['min_confidence']}")
    for name, value in zip(labels, f1):
        print(f"  {name:<16} F1 {value:.4f}")
    print(f"written: {args.out} ({args.out.stat().st_size} bytes) and {args.out.with_suffix('.toml')}")


def main() -> int:
    try:
        run(arguments())
    except idx.DataError as error:
        print(f"tools/train: {error}", file=sys.stderr)
        return 2
    return 0
