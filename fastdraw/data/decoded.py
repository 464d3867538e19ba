"""Images of uint8, decoded once and kept in the cache: one file for a data set, mapped into the memory of whoever uses it.

    CACHE/decoded/KEY/pixels.u8     [n, C, H, W], nothing but the pixels
    CACHE/decoded/KEY/about.json    what they are; digests of the pixels; the file's size, times and number when it was written

What the images are made from must show in the key. When a set is opened, a file of the same size, times (that of its last
change, which nobody can set, among them) and number is the one that was written; any other is compared by its digests, and
made again where they differ. Sets that were not opened for the longest time go where the cache is full.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastdraw import env
from fastdraw.data.cache import cache_folder, filling
from fastdraw.data.splits import DataError
from fastdraw.files import growing, sweep, write_atomically

PIXELS, ABOUT = "pixels.u8", "about.json"
FORMAT = 1
#: Bytes that one digest is of.
CHUNK = 1 << 24


class Decoded(NamedTuple):
    """pixels: uint8 [n, C, H, W], mapped, in pages that other processes share; what is written to them stays in this process.
    about: what `make` told."""

    pixels: np.ndarray
    about: dict[str, Any]


#: Writes the pixels to an open file; gives their shape [n, C, H, W] and what else is to be known of them, as JSON holds it.
Make = Callable[[BinaryIO], tuple[tuple[int, ...], dict[str, Any]]]


def folder() -> Path:
    return cache_folder() / "decoded"


def kept(key: str, make: Make) -> Decoded:
    """The set of this key: from the cache, or made. One process makes it, others of this machine wait.

    Raises DataError where the cache has no room for it, and whatever `make` raises; nothing is left of it then.
    """
    place = folder() / key
    found = opened(place)
    if found is not None:
        return found
    with filling(place):
        found = opened(place)
        if found is not None:
            return found
        place.mkdir(exist_ok=True)
        # What a killed process left. A set without its about.json is none.
        sweep(place)
        (place / ABOUT).unlink(missing_ok=True)
        try:
            with growing(place / PIXELS) as file:
                shape, about = make(file)
                file.flush()
                size = os.fstat(file.fileno()).st_size
                if size != math.prod(shape):
                    raise DataError(f"{place}: expected {math.prod(shape):,} bytes of pixels, got {size:,}")
                check_limit(size)
                file.seek(0)
                digests = _digests(file)
            text = {"format": FORMAT, "shape": shape, "digests": digests, "about": about}
            _sign(place, text)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        trim(place)
        found = opened(place)
    if found is None:
        raise DataError(f"{place}: expected the pixels that were just written, got others")
    return found


def opened(place: Path) -> Decoded | None:
    """The set in a folder of the cache; None where there is none, or one that is damaged: it is to be made again."""
    try:
        text = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        shape = tuple(text["shape"])
        if text["format"] != FORMAT or len(shape) != 4 or any(type(n) is not int or n < 1 for n in shape):
            return None
        with open(place / PIXELS, "rb") as file:
            if os.fstat(file.fileno()).st_size != math.prod(shape):
                return None
            if text["written"] != _signature(file):
                if text["digests"] != _digests(file):
                    return None
                _sign(place, text)
            pixels = np.memmap(file, np.uint8, "c", shape=shape)
        os.utime(place / ABOUT)
        return Decoded(pixels, dict(text["about"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def sets() -> list[tuple[Path, int, float]]:
    """Folders of the cache that hold a set, their bytes, and when they were last opened; the longest ago first."""
    found = []
    for about in folder().glob(f"*/{ABOUT}"):
        try:
            size = sum(file.stat().st_size for file in about.parent.iterdir())
            found.append((about.parent, size, about.stat().st_mtime))
        except OSError:
            # Another process is taking it away.
            continue
    return sorted(found, key=lambda each: each[2])


def check_limit(size: int) -> None:
    """Refuses a set that is larger than the cache may become."""
    if size > env.cache_limit():
        raise DataError(
            f"data: expected images of at most {env.cache_limit():,} bytes once decoded, as FASTDRAW_CACHE_LIMIT allows, "
            f"got {size:,}"
        )


def trim(keep: Path) -> None:
    """Takes sets away until the cache is within its limit. Whoever has one mapped keeps it."""
    there = sets()
    size = sum(each[1] for each in there)
    for place, its, _ in there:
        if size <= env.cache_limit():
            return
        if place != keep:
            shutil.rmtree(place, ignore_errors=True)
            size -= its


def _sign(place: Path, text: dict[str, Any]) -> None:
    with open(place / PIXELS, "rb") as file:
        written = _signature(file)
    write_atomically(place / ABOUT, json.dumps({**text, "written": written}).encode())


def _signature(file: BinaryIO) -> list[int]:
    about = os.fstat(file.fileno())
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _digests(file: BinaryIO) -> list[str]:
    found = []
    while chunk := file.read(CHUNK):
        found.append(blake2b(chunk, digest_size=16).hexdigest())
    return found
