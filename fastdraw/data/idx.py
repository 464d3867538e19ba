"""idx files, the form that MNIST comes in, plain or gzipped: a big-endian header, then bytes."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from fastdraw.data.arrays import check_unpacked, reading, unzipped
from fastdraw.data.splits import DataError

_UNSIGNED_BYTE = 8


def read(path: Path, dimensions: tuple[int, ...] = (3, 4)) -> np.ndarray:
    """uint8 of the shape that the header states, with one of these numbers of dimensions. Raises DataError."""
    with reading(path, "a whole gzip file"), unzipped(path) as file:
        return _read(file, path, dimensions)


def md5_of(array: np.ndarray) -> str:
    """Of the idx file that holds this array of bytes."""
    found = hashlib.md5(
        struct.pack(f">4B{array.ndim}I", 0, 0, _UNSIGNED_BYTE, array.ndim, *array.shape), usedforsecurity=False
    )
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _read(file, path: Path, dimensions: tuple[int, ...]) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise DataError(f"{path}: expected an idx file, which begins with two zero bytes, got {head!r}")
    if head[2] != _UNSIGNED_BYTE or head[3] not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise DataError(f"{path}: expected unsigned bytes (8) in {wanted} dimensions, got type {head[2]} in {head[3]}")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: expected an idx header of {4 + 4 * head[3]} bytes, got {4 + len(sizes)}")
    shape = struct.unpack(f">{head[3]}I", sizes)
    size = math.prod(shape)
    if size == 0:
        raise DataError(f"{path}: expected at least one image with at least one pixel, got {' x '.join(map(str, shape))}")
    check_unpacked(str(path), path, size)
    # One byte more than there should be, to see whether there are more.
    data = file.read(size + 1)
    if len(data) != size:
        came = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{path}: expected {size:,} bytes for {' x '.join(map(str, shape))} values, got {came}")
    return np.frombuffer(data, np.uint8).reshape(shape)
