"""Many pictures into one file: first what all of them are to become is found out, then each is decoded once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdraw.data import decoded, pictures, workers
from fastdraw.data.bar import bar
from fastdraw.data.splits import DataError

#: Names in a message; of more, their number.
_NAMED = 20


class How(NamedTuple):
    """image_size, skip_bad and progress as in `data.load`."""

    image_size: tuple[int, int] | None
    skip_bad: bool
    progress: bool


class Decoding(NamedTuple):
    """read: the numbers of the pictures that could be read, ascending. shape: [C, H, W] of each. looks: by their numbers."""

    read: list[int]
    shape: tuple[int, ...]
    looks: dict[int, pictures.Look]

    @property
    def grey(self) -> bool:
        return self.shape[0] == 1


def decode(
    source: Callable[[int], Path | pictures.Encoded],
    count: int,
    where: str,
    how: How,
    bad: list[str],
    order: Callable[[list[int]], Iterable[int]],
    out: BinaryIO,
    processes: int | None = None,
) -> Decoding:
    """Writes the pixels of source(0) .. source(count - 1) to `out`: grey where more than half of them are, RGB otherwise.

    where: what they are in messages. bad: what cannot be read, which is added to. order: from the numbers of those that were
    read, which of them stands where in `out`. Raises DataError.
    """
    with bar(f"looking at {Path(where).name}", how.progress) as report:
        seen = workers.each(lambda i: pictures.look(source(i), how.image_size), count, report, processes)
    looks = {i: look for i, look in enumerate(seen) if not isinstance(look, DataError)}
    bad += [str(error) for error in seen if isinstance(error, DataError)]
    mode = "L" if 2 * sum(look.grey for look in looks.values()) > len(looks) else "RGB"
    ink, light = (sum(look.ink[i] for look in looks.values()) for i in (0, 1))
    # Dark ink is seen on white, light ink on black.
    ground = 255 if ink and light / ink < 128 else 0
    places = list(looks)
    # A file without a name in the cache, gone with whoever has it open. What is to stand where is known once all are read.
    with tempfile.TemporaryFile(dir=decoded.folder()) as scratch, bar(f"decoding {Path(where).name}", how.progress) as report:
        handle = scratch.fileno()

        def put(place: int) -> tuple[int, ...]:
            image = pictures.decode(source(places[place]), mode, how.image_size, ground)
            # Not through a mapping, to which a full disk is no error but a signal. Others may have another size: seen below.
            pixels, at = image.tobytes(), place * image.size
            while pixels:
                done = os.pwrite(handle, pixels, at)
                pixels, at = pixels[done:], at + done
            return image.shape

        shapes = workers.each(put, len(places), report, processes)
        bad += [str(error) for error in shapes if isinstance(error, DataError)]
        read = {i: shape for i, shape in zip(places, shapes, strict=True) if not isinstance(shape, DataError)}
        _check(read, bad, source, where, how.skip_bad)
        shape, numbers = next(iter(read.values())), list(read)
        at, row = {i: place for place, i in enumerate(places)}, int(np.prod(shape))
        for n in order(numbers):
            scratch.seek(at[numbers[n]] * row)
            out.write(scratch.read(row))
    return Decoding(numbers, shape, looks)


def _check(
    read: dict[int, tuple[int, ...]],
    bad: list[str],
    source: Callable[[int], Path | pictures.Encoded],
    where: str,
    skip_bad: bool,
) -> None:
    """Refuses shapes [C, H, W] that are not all the same, and what could not be read."""
    if len(set(read.values())) > 1:
        first, (_, height, width) = next(iter(read.items()))
        other = [i for i, shape in read.items() if shape != read[first]]
        _, h, w = read[other[0]]
        more = f", and {len(other) - 1} more of other sizes" if len(other) > 1 else ""
        raise DataError(
            f"{source(other[0])}: expected the size of {source(first).name}, {height} x {width} (height x width), "
            f"got {h} x {w}{more}; image_size brings all to one"
        )
    # They begin with the picture.
    bad.sort()
    if bad and not skip_bad:
        raise DataError(
            f"{where}: expected images that can be read, got {len(bad)} that cannot: {listed(bad, '; ')}; "
            "skip_bad (--skip-bad) leaves them out"
        )
    if not read:
        raise DataError(f"{where}: expected images that can be read, got none: {listed(bad, '; ')}")


def cut(array: np.ndarray, counts: Sequence[int]) -> list[Tensor]:
    """The first of them, as many as counts[0], the next ones, and so on; no copies."""
    return [torch.from_numpy(part) for part in np.split(array, np.cumsum(counts)[:-1])]


def listed(names: list[str], between: str = ", ") -> str:
    """Names, or some of them and how many more."""
    more = f"{between}and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return between.join(names[:_NAMED]) + more
