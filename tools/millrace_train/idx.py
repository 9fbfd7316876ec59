"""IDX files, the format of MNIST: http://yann.lecun.com/exdb/mnist/ ."""
from __future__ import annotations

import gzip
import pathlib
import struct

import numpy as np


class DataError(Exception):
    """What is wrong with the input, in words for the person who gave it."""


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    return None


def read(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Unsigned bytes with so many dimensions; gzip is recognised by the file's name."""
    try:
        data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(
            f"{path}: expected an IDX file of unsigned bytes with {dimensions} dimensions "
            f"(it begins with {data[:4].hex()})")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    wanted = int(np.prod(shape))
    if len(data) - header != wanted:
        raise DataError(f"{path}: expected {wanted} bytes for the shape {shape}, found {len(data) - header}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_part(folder: pathlib.Path, part: str, classes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of bytes and labels of `train` or `dev`; None if the part is not there."""
    images, labels = _find(folder, f"{part}-images-idx3-ubyte"), _find(folder, f"{part}-labels-idx1-ubyte")
    if images is None or labels is None:
        return None
    x, y = read(images, 3), read(labels, 1)
    if len(x) != len(y):
        raise DataError(f"{images}: {len(x)} images, but {labels} has {len(y)} labels")
    if len(y) and int(y.max()) >= classes:
        raise DataError(f"{labels}: label {int(y.max())}, but labels.txt names {classes} classes (0 to {classes - 1})")
    return x.reshape(len(x), -1), y.astype(np.int64)


def read_labels(path: pathlib.Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected one class name a line") from error
    if len(set(names)) != len(names) or not names:
        raise DataError(f"{path}: expected class names, each once")
    return names
