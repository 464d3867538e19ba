"""Arrays out of MATLAB's .mat files (up to version 7.2; later ones are HDF5 files)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fastdraw.data.arrays import check_unpacked
from fastdraw.data.splits import DataError, needs_extra

#: Of MATLAB's classes, those of plain numbers.
_NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "logical")


def names(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of numbers in the file, by name; nothing is unpacked. Raises DataError."""
    with needs_extra("a .mat file"):
        from scipy.io import whosmat
    try:
        return {name: shape for name, shape, kind in whosmat(path) if kind in _NUMBERS}
    except Exception as error:
        raise _unreadable(path, error) from error


def read(path: Path, *wanted: str) -> list[np.ndarray]:
    """The arrays of these names, each as MATLAB stores it. Raises DataError."""
    from scipy.io import loadmat

    there = names(path)
    for name in wanted:
        if name not in there:
            raise DataError(f"{path}: expected an array of numbers named {name}, got {', '.join(there) or 'none'}")
        # Eight bytes are the most that a number has.
        check_unpacked(f"{path}: {name}", path, 8 * math.prod(there[name]))
    try:
        arrays = loadmat(path, variable_names=list(wanted))
        return [np.asarray(arrays[name]) for name in wanted]
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    """scipy in the face of damaged bytes raises anything; to the user it is one thing."""
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path}: expected a readable file, got: {error.strerror}")
    if isinstance(error, NotImplementedError):
        return DataError(f"{path}: expected a .mat file of version 7.2 or older, got one of version 7.3 (HDF5)")
    return DataError(f"{path}: expected a whole .mat file, got a damaged one or another kind of file ({error})")
