"""What a data set is here: three parts of uint8 images, and how they become what a model takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class DataError(ValueError):
    """A data set that cannot be had or read: one sentence naming the file, what was expected and what came."""


class Labels(NamedTuple):
    """Class numbers, int64 [n], of the images of each split."""

    train: Tensor
    validation: Tensor
    test: Tensor


class Splits(NamedTuple):
    """Three parts of a data set, each uint8 [n, C, H, W] with values 0 to 255 (0 and 255 where it is binary), never empty."""

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    labels: Labels | None = None


def images(batch: Tensor) -> Tensor:
    """uint8 [B, C, H, W] as the model takes it: float32 in [0, 1]."""
    return batch.float() / 255


def binarize(batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Dynamic binarisation: uint8 [B, C, H, W] -> float32 of 0 and 1, each pixel one with probability pixel / 255."""
    return torch.bernoulli(images(batch), generator=generator)


def split(pixels: np.ndarray, labels: np.ndarray | None, name: str) -> Splits:
    """Images of one array [n, C, H, W] dealt out 80/10/10, by a seed that never changes."""
    test, validation, train = _deal(len(pixels), 2, name)
    return make(name, {"train": (pixels, labels)}, {"train": train, "validation": validation, "test": test})


def complete(parts: dict[str, tuple[np.ndarray, np.ndarray | None]], name: str) -> Splits:
    """Splits of a file that has its own. What it lacks of validation and test comes out of train, a tenth of that each."""
    missing = [part for part in ("validation", "test") if part not in parts]
    *drawn, train = _deal(len(parts["train"][0]), len(missing), name)
    return make(name, parts, {"train": train, **dict(zip(missing, drawn, strict=True))})


def make(name: str, parts: dict[str, tuple[np.ndarray, np.ndarray | None]], rows: dict[str, np.ndarray | slice]) -> Splits:
    """Splits from (images, labels) of each part; a part that is not there is made of `rows` of train."""
    pixels, labels = [], []
    for part in ("train", "validation", "test"):
        these, classes = parts.get(part, parts["train"])
        chosen = rows.get(part, slice(None))
        # A copy each, so that no split keeps the memory of another alive.
        pixels.append(torch.from_numpy(np.array(these[chosen], order="C")))
        labels.append(None if classes is None else torch.from_numpy(classes[chosen].astype(np.int64)))
    train, validation, test = labels
    known = train is not None and validation is not None and test is not None
    return Splits(*pixels, name, Labels(train, validation, test) if known else None)


def _deal(n: int, count: int, name: str) -> list[np.ndarray]:
    """`count` lots of a tenth each (at least one image) of 0 .. n-1, and what is left; each in ascending order."""
    tenth = max(1, round(n / 10))
    if n <= count * tenth:
        raise DataError(f"{name}: expected at least {count + 1} images to train and to test on, got {n}")
    # RandomState: numpy promises that its numbers stay the same in every version.
    order = np.random.RandomState(0).permutation(n)
    lots = [order[i * tenth : (i + 1) * tenth] for i in range(count)]
    return [np.sort(lot) for lot in (*lots, order[count * tenth :])]


@contextlib.contextmanager
def needs_extra(purpose: str) -> Iterator[None]:
    """Around imports of packages that only the extra `train` installs: says how to get them."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f'{purpose} needs {error.name}, which is not installed: pip install "fastdraw[train]"'
        raise ModuleNotFoundError(message, name=error.name) from error
