"""Arrays of any usual form as images: uint8 [n, C, H, W], 0 to 255."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdraw.data.splits import DataError
from fastdraw.installed import needs_extra

#: A file may hold this many times its own size once unpacked, or this many bytes, whichever is more. Blank paper packs 20 to
#: 90 times smaller; a file that goes further was made to fill the memory.
LARGEST_RATIO = 200
LARGEST_SMALL = 1 << 26
#: Class numbers, which decide how many weights a model has for them.
LARGEST_LABEL = (1 << 16) - 1


#: A file's arrays of uint8 from so many bytes on are mapped where they are stored as they are, and never held in memory.
MAPPED = 1 << 28


@contextlib.contextmanager
def reading(where: object, what: str = "a readable file", kind: str = "file") -> Iterator[None]:
    """Whatever goes wrong within it is a DataError: at damaged bytes libraries raise anything. what: that was expected, where
    it is not the system that has a word for what is wrong with the `kind`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{where}: expected a readable {kind}, got: {error.strerror}") from error
        raise DataError(f"{where}: expected {what}, got a damaged one ({error})") from error


def read_bytes(file: Path, kind: str = "file") -> bytes:
    """Raises DataError."""
    with reading(file, kind=kind):
        return file.read_bytes()


@contextlib.contextmanager
def unzipped(path: Path) -> Iterator[Any]:
    """The file, open for reading; where it is gzipped, what it unpacks to."""
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if packed else raw as file:
            yield file


def check_unpacked(where: str, file: Path | int, size: int) -> None:
    """Refuses what says that it unpacks to `size` bytes, before anything is unpacked. file: the packed one, or its bytes."""
    limit = max(LARGEST_SMALL, LARGEST_RATIO * (file if isinstance(file, int) else file.stat().st_size))
    if size > limit:
        raise DataError(f"{where}: expected at most {limit:,} bytes unpacked for a file of its size, got {size:,}")


def check_memory(where: str, size: int) -> None:
    """Refuses what would take `size` bytes of memory where there are not as many, before any of it is taken."""
    free = _free_memory()
    if size > free:
        raise DataError(f"{where}: expected images that fit into {free:,.0f} bytes of free memory, got {size:,} bytes")


def _free_memory() -> float:
    """Bytes; without end where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return math.inf


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """[n, H, W], [n, H, W, C] or [n, C, H, W] of uint8, bool, or floats in [0, 1] -> uint8 [n, C, H, W], C one or three.

    uint8 of nothing but 0 and 1 is taken for binary images: 1 becomes 255. Raises DataError.
    """
    array = _channels_first(array, where)
    if 0 in array.shape:
        raise DataError(f"{where}: expected at least one image with at least one pixel, got an array of shape {array.shape}")
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        return array * np.uint8(255) if _is_binary(array) else array
    if array.dtype.kind != "f":
        raise DataError(f"{where}: expected uint8, bool or floating-point values, got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    # Written so that NaN, which compares false, is refused too.
    if not (low >= 0 and high <= 1):
        raise DataError(f"{where}: expected floating-point values in [0, 1], got values from {low:g} to {high:g}")
    # An image at a time: a float64 copy of everything could be more than the memory holds.
    result = np.empty(array.shape, np.uint8)
    for source, target in zip(array, result, strict=True):
        np.rint(source.astype(np.float32) * 255, out=target, casting="unsafe")
    return result


def _is_binary(array: np.ndarray) -> bool:
    """Whether uint8 values are all 0 and 1, and not all 0; looked at in parts, up to the first that says no."""
    step, most = max(1, (1 << 24) // max(1, array[:1].size)), 0
    for start in range(0, len(array), step):
        most = max(most, int(array[start : start + step].max()))
        if most > 1:
            return False
    return most == 1


def _channels_first(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
        if first != last:
            return array if first else array.transpose(0, 3, 1, 2)
    raise DataError(
        f"{where}: expected images of shape [n, H, W], [n, H, W, C] or [n, C, H, W] with C one or three and H, W neither, "
        f"got {list(array.shape)}"
    )


def as_labels(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """One class number for each image: integers [n]. Raises DataError."""
    shape = list(array.shape)
    if shape in ([count, 1], [1, count]):
        array = array.ravel()
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(f"{where}: expected {count} labels, integers of shape [{count}], got {array.dtype} of shape {shape}")
    low, high = int(array.min()), int(array.max())
    # Each class has weights of its own.
    if low < 0 or high > LARGEST_LABEL:
        raise DataError(f"{where}: expected class numbers from 0 to {LARGEST_LABEL:,}, got some from {low:,} to {high:,}")
    return array


def resized(images: Tensor, image_size: tuple[int, int]) -> Tensor:
    """uint8 [n, C, H, W] -> [n, C, *image_size]: the largest middle part of that form, resampled."""
    if images.shape[2:] == image_size:
        return images
    with needs_extra("resizing images"):
        from PIL import Image, ImageOps
    height, width = image_size
    check_memory("image_size", len(images) * images.shape[1] * height * width)
    result = np.empty((*images.shape[:2], height, width), np.uint8)
    for source, target in zip(images.numpy(), result, strict=True):
        for channel, out in zip(source, target, strict=True):
            out[:] = np.asarray(ImageOps.fit(Image.fromarray(channel), (width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(result)
