"""CIFAR-10 (Krizhevsky 2009) in its binary version: rows of one label and 3 x 32 x 32 bytes. Nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdraw.data import archive, npz
from fastdraw.data.arrays import read_bytes
from fastdraw.data.download import fetch, original
from fastdraw.data.splits import DataError, Parts, Splits, check_shape, complete

#: One server under two names.
MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
#: The md5 that the data set's own page gives.
ARCHIVE = ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")
FOLDER = "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
SMALL = "cifar10_small.npz"
FORM = f"{ARCHIVE[0]}, the folder {FOLDER} or {SMALL}"

_ROW = 1 + 3 * 32 * 32
#: Ten times the originals.
_LARGEST = 10 * 10_000 * _ROW


def load(folder: Path | None, download: bool, progress: bool) -> Splits:
    """45,000 / 5,000 / 10,000 images of 3 x 32 x 32 with labels, the validation split dealt out of the training images."""
    names = [name for files in FILES.values() for name in files]
    batches = None if folder is None else _batches(folder)
    if batches is not None:
        found = {name: read_bytes(batches / name) for name in names}
    elif folder is None or (folder / ARCHIVE[0]).exists():
        path = fetch(*ARCHIVE, MIRRORS, download, progress) if folder is None else original(folder / ARCHIVE[0], ARCHIVE[1])
        wanted = {f"{FOLDER}/{name}": name for name in names}
        found = {wanted[member]: content for member, content in archive.members(path, wanted, _LARGEST)}
    else:
        return complete(check_shape(npz.load(folder / SMALL), (3, 32, 32), folder / SMALL), "cifar10")
    parts: Parts = {part: _rows([(name, found[name]) for name in files]) for part, files in FILES.items()}
    return complete(parts, "cifar10")


def holds(folder: Path) -> bool:
    return (folder / ARCHIVE[0]).exists() or _batches(folder) is not None or (folder / SMALL).exists()


def _batches(folder: Path) -> Path | None:
    """The folder with the unpacked files, within `folder` or itself."""
    return next((path for path in (folder / FOLDER, folder) if (path / FILES["train"][0]).exists()), None)


def _rows(files: list[tuple[str, bytes]]) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [n, 3, 32, 32], labels [n]) of the files one after another."""
    for name, content in files:
        if not content or len(content) % _ROW:
            raise DataError(f"{name}: expected rows of {_ROW} bytes, got {len(content):,} bytes")
    rows = np.frombuffer(b"".join(content for _, content in files), np.uint8).reshape(-1, _ROW)
    labels = rows[:, 0]
    if labels.max() > 9:
        raise DataError(f"{files[0][0]}: expected labels from 0 to 9, got {labels.max()}")
    return rows[:, 1:].reshape(-1, 3, 32, 32), labels.astype(np.int64)
