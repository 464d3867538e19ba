"""Omniglot (Lake et al. 2015) in 28 x 28: Burda's file and split (Burda et al. 2016), or omniglot28.npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdraw.data import matlab
from fastdraw.data.arrays import as_images
from fastdraw.data.download import fetch
from fastdraw.data.npz import Arrays
from fastdraw.data.splits import DataError, Parts, Splits, check_shape, complete

MIRRORS = (
    "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/",
    "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/",
)
#: No checksum of it is published. Its arrays carry zlib's own, and their sizes are checked.
FILE = "chardata.mat"
#: Images in it: to train and validate on, and to test on.
COUNTS = (24_345, 8_070)
#: Of the first, as many are Burda's validation split.
VALIDATION = 1_345
SMALL = "omniglot28.npz"
FORM = f"{FILE} or {SMALL}"


def load(folder: Path | None, download: bool, progress: bool) -> Splits:
    """Images of 1 x 28 x 28, white on black, without labels.

    chardata.mat:   grey; 23,000 / 1,345 / 8,070, split as Burda split them; all alphabets are in each part.
    omniglot28.npz: binary; 17,352 / 1,928 / 13,180; test images are of other alphabets than the rest.
    """
    if folder is not None and not (folder / FILE).exists():
        return _from_npz(folder / SMALL)
    if folder is None:
        return read(fetch(FILE, None, MIRRORS, download, progress, check=_check), "omniglot")
    return read(folder / FILE, "omniglot")


def holds(folder: Path) -> bool:
    return (folder / FILE).exists() or (folder / SMALL).exists()


def read(path: Path, name: str) -> Splits:
    """chardata.mat, or a file like it: `data` and `testdata`, [784, n] of intensities in [0, 1]."""
    data, test = (_images(array, f"{path}: {key}") for key, array in zip(_KEYS, matlab.read(path, *_KEYS), strict=True))
    # The seed and the place of the validation split are those of Burda's own code.
    order = np.random.RandomState(123).permutation(len(data))
    kept = len(data) - round(len(data) * VALIDATION / COUNTS[0])
    if not 0 < kept < len(data):
        raise DataError(f"{path}: expected more than a few images to train on, got {len(data)}")
    parts: Parts = {"train": (data[order[:kept]], None), "validation": (data[order[kept:]], None), "test": (test, None)}
    return complete(parts, name)


_KEYS = ("data", "testdata")


def _images(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim != 2 or array.shape[0] != 784:
        raise DataError(f"{where}: expected an array of shape [784, n], got {list(array.shape)}")
    # Each image is a column, its pixels in MATLAB's order: down the first column of the image, then down the second.
    return as_images(array.reshape(28, 28, -1).transpose(2, 1, 0), where)


def _check(path: Path) -> None:
    shapes = tuple(array.shape for array in matlab.read(path, *_KEYS))
    wanted = tuple((784, count) for count in COUNTS)
    if shapes != wanted:
        raise DataError(f"{FILE}: expected arrays of shape {wanted}, got {shapes}")


def _from_npz(path: Path) -> Splits:
    with Arrays(path) as arrays:
        parts: Parts = {"train": (arrays.images("background"), None), "test": (arrays.images("evaluation"), None)}
    return complete(check_shape(parts, (1, 28, 28), path), "omniglot")
