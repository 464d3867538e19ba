""".npz and .npy files: named arrays in a zip file, or one. Nothing is unpickled, nor unpacked before its size is known."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastdraw.data import arrays
from fastdraw.data.arrays import as_images, as_labels, check_unpacked, reading
from fastdraw.data.splits import DataError, Parts

_PARTS = {
    "train": ("train", "train_images", "x_train"),
    "validation": tuple(f.format(n) for n in ("validation", "valid", "val") for f in ("{}", "{}_images", "x_{}")),
    "test": ("test", "test_images", "x_test"),
}
_LABELS = {
    "train": ("train_labels", "y_train"),
    "validation": tuple(f.format(n) for n in ("validation", "valid", "val") for f in ("{}_labels", "y_{}")),
    "test": ("test_labels", "y_test"),
}
_KEYS = "train, validation and test, or train_images and test_images, or images, or a single array"


def load(path: Path) -> Parts:
    """The parts that the file has; a single array, or one named images, is all to train on. Raises DataError."""
    with Arrays(path) as there:
        found = {part: key for part, keys in _PARTS.items() if (key := there.first(keys))}
        labels = _LABELS
        if not found:
            single = "images" if "images" in there.names else there.names[0] if len(there.names) == 1 else None
            found, labels = {"train": single} if single else {}, {"train": ("labels",)}
        if "train" not in found:
            raise DataError(f"{path}: expected arrays named {_KEYS}, got {', '.join(there.names) or 'none'}")
        parts: Parts = {}
        for part, key in found.items():
            pixels = there.images(key)
            if part != "train" and pixels.shape[1:] != parts["train"][0].shape[1:]:
                one, other = list(parts["train"][0].shape[1:]), list(pixels.shape[1:])
                raise DataError(f"{path}: expected images of one shape [C, H, W], got {one} in train and {other} in {part}")
            parts[part] = (pixels, there.labels(labels[part], len(pixels)))
        return parts


class Arrays:
    """The arrays of an open .npz file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, "a whole .npz file"):
            self._zip = zipfile.ZipFile(path)
        self.names = [entry.removesuffix(".npy") for entry in self._zip.namelist() if entry.endswith(".npy")]

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def first(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.names), None)

    def labels(self, names: tuple[str, ...], count: int) -> np.ndarray | None:
        name = self.first(names)
        return None if name is None else as_labels(self.read(name), count, f"{self.path}: {name}")

    def images(self, name: str) -> np.ndarray:
        where = f"{self.path}: {name}"
        array = self.read(name)
        # Bits packed eight to a byte, the number of pixels beside them.
        if array.ndim == 2 and array.dtype == np.uint8 and "shape" in self.names:
            array = _unpack(array, self.read("shape"), where, self.path)
        return as_images(array, where)

    def read(self, name: str) -> np.ndarray:
        where = f"{self.path}: {name}"
        with reading(where, "a whole array"):
            info = self._zip.getinfo(f"{name}.npy")
            # What numpy writes. Unpackers of the other kinds take as much memory as the file tells them to.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{where}: expected a deflated array, got one packed by method {info.compress_type}")
            check_unpacked(where, self.path, info.file_size)
            with self._zip.open(info) as member:
                if info.compress_type == zipfile.ZIP_STORED and info.file_size >= arrays.MAPPED:
                    mapped = _mapped(self.path, _starts(self.path, info), info.file_size, where)
                    if mapped is not None:
                        return mapped
                return _read_array(member, info.file_size, where)


def load_array(path: Path) -> np.ndarray:
    """The array of a .npy file. Raises DataError."""
    with reading(path, "a whole .npy file"):
        size = path.stat().st_size
        mapped = _mapped(path, 0, size, str(path)) if size >= arrays.MAPPED else None
        if mapped is not None:
            return mapped
        with open(path, "rb") as file:
            return _read_array(file, size, str(path))


def _mapped(path: Path, start: int, length: int, where: str) -> np.ndarray | None:
    """The array of the .npy file that is `length` bytes of `path`, mapped; None where it is no images of uint8 in C's order.

    Its pages are those of all processes that have it mapped; what is written to them stays in this one. No checksum is read.
    """
    with open(path, "rb") as file:
        file.seek(start)
        shape, order, dtype = _header(file, where)
        if dtype != np.uint8 or order != "C" or len(shape) not in (3, 4) or 0 in shape:
            return None
        if file.tell() - start + math.prod(shape) != length:
            raise DataError(f"{where}: expected {math.prod(shape):,} bytes of uint8, got {length - file.tell() + start:,}")
        return np.memmap(file, np.uint8, "c", file.tell(), shape)


def _starts(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member are: behind a header of its own, whose names may be longer than the list's."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise DataError(f"{path}: expected a member's header, got a damaged one")
        return info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _read_array(file: Any, length: int, where: str) -> np.ndarray:
    """The array of an open .npy file of `length` bytes."""
    shape, order, dtype = _header(file, where)
    size = math.prod(shape) * dtype.itemsize
    if any(not 0 <= n < 1 << 48 for n in shape):
        raise DataError(f"{where}: expected an array that can be, got one of shape {list(shape)}")
    if file.tell() + size != length:
        raise DataError(f"{where}: expected {size:,} bytes of {dtype}, got {length - file.tell():,}")
    array, place = np.empty(size, np.uint8), 0
    while got := file.readinto(array.data[place : place + (1 << 20)]):
        place += got
    # At the end, and no sooner, a zip file's checksum is looked at.
    if place != size or file.read(1):
        raise DataError(f"{where}: expected {size:,} bytes of {dtype}, got {place:,}{' and more' * (place == size)}")
    return array.view(dtype).reshape(shape, order=order)


def _header(member: Any, where: str) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{where}: expected an array of numbers, got .npy version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(member)
    except Exception as error:
        # numpy's parser raises whatever Python's own tokenizer and parser do.
        raise DataError(f"{where}: expected the header of an array, got a damaged one") from error
    if dtype.kind not in "buif":
        raise DataError(f"{where}: expected an array of numbers, got {'pickled objects' if dtype.hasobject else dtype}")
    return shape, "F" if by_columns else "C", dtype


def _unpack(array: np.ndarray, shape: np.ndarray, where: str, path: Path) -> np.ndarray:
    counts = np.unique(shape.reshape(-1, shape.shape[-1])[:, -1]) if shape.ndim and shape.size else shape.ravel()
    pixels = int(counts[0]) if len(counts) == 1 and counts.dtype.kind in "iu" else 0
    side = math.isqrt(max(pixels, 0))
    if pixels < 1 or side * side != pixels or array.shape[1] != -(-pixels // 8):
        raise DataError(
            f"{where}: expected rows of packed bits of square images, as many as `shape` states, got {list(array.shape)} "
            f"for {counts.tolist()} pixels"
        )
    check_unpacked(where, path, len(array) * pixels)
    return np.unpackbits(array, axis=1, count=pixels).reshape(-1, side, side) * np.uint8(255)
