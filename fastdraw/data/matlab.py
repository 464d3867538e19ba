"""Arrays out of MATLAB's .mat files (up to version 7.2; later ones are HDF5 files)."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from fastdraw.data.arrays import check_unpacked, reading
from fastdraw.data.splits import DataError
from fastdraw.installed import needs_extra

_WHOLE = "a whole .mat file"
#: Of MATLAB's classes, those of plain numbers.
_NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "logical")


def names(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of numbers in the file, by name; nothing is unpacked. Raises DataError."""
    with needs_extra("a .mat file"):
        from scipy.io import whosmat
    with reading(path, _WHOLE):
        _check_elements(path)
        try:
            there = [(name, shape) for name, shape, kind in whosmat(path) if kind in _NUMBERS]
        except NotImplementedError:
            raise DataError(f"{path}: expected a .mat file of version 7.2 or older, got one of version 7.3 (HDF5)") from None
        if len(dict(there)) < len(there) or any(size < 0 for _, shape in there for size in shape):
            raise ValueError("a name that comes twice, or a negative size")
        return dict(there)


def read(path: Path, *wanted: str) -> list[np.ndarray]:
    """The arrays of these names, each as MATLAB stores it. Raises DataError."""
    from scipy.io import loadmat

    there = names(path)
    for name in wanted:
        if name not in there:
            raise DataError(f"{path}: expected an array of numbers named {name}, got {', '.join(there) or 'none'}")
        # Eight bytes are the most that a number has.
        check_unpacked(f"{path}: {name}", path, 8 * math.prod(there[name]))
    with reading(path, _WHOLE):
        arrays = loadmat(path, variable_names=list(wanted))
        return [np.asarray(arrays[name]) for name in wanted]


def _check_elements(path: Path) -> None:
    """Refuses a file whose elements unpack to far more than its size.

    Every name and size in it is the file's own word; scipy takes as much memory as they say, as long as there are bytes.
    """
    with open(path, "rb") as file:
        length, place, unpacked = path.stat().st_size, 128, 0
        order = "<" if file.read(128)[126:128] == b"IM" else ">"
        while place + 8 <= length:
            file.seek(place)
            kind, size = struct.unpack(f"{order}2I", file.read(8))
            place += 8 + size
            if kind != _COMPRESSED:
                continue
            unpacker, packed = zlib.decompressobj(), file.read(size)
            while packed and not unpacker.eof:
                unpacked += len(unpacker.decompress(packed, 1 << 20))
                check_unpacked(str(path), path, unpacked)
                packed = unpacker.unconsumed_tail


#: The kind of an element that holds another one, packed by zlib.
_COMPRESSED = 15
