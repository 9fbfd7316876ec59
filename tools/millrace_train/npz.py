"""NumPy archives as sink-dataset writes them: train_x, train_y, dev_x, dev_y, labels."""
from __future__ import annotations

import pathlib
import zipfile

import numpy as np

from .idx import DataError


def read(path: pathlib.Path, part: str) -> tuple[list[str], tuple[np.ndarray, np.ndarray] | None]:
    """Class names, and rows of bytes and labels of `train` or `dev`; None if the part is not there or empty."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("labels", f"{part}_x", f"{part}_y") if name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a NumPy archive (.npz) without pickled objects: {error}") from error
    if "labels" not in arrays:
        raise DataError(f"{path}: expected the arrays labels, train_x and train_y (dev_x, dev_y); 'labels' is missing")
    labels = [str(name) for name in arrays["labels"]]
    x, y = arrays.get(f"{part}_x"), arrays.get(f"{part}_y")
    if x is None or y is None or not len(y):
        return labels, None
    if x.dtype != np.uint8 or x.ndim < 2 or y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
        raise DataError(f"{path}: expected {part}_x of uint8 [N, bytes] and {part}_y of integers [N]; "
                        f"found {x.dtype} {list(x.shape)} and {y.dtype} {list(y.shape)}")
    if int(y.min()) < 0 or int(y.max()) >= len(labels):
        raise DataError(f"{path}: {part}_y goes from {int(y.min())} to {int(y.max())}, but labels names {len(labels)} classes")
    return labels, (x.reshape(len(x), -1), y.astype(np.int64))
