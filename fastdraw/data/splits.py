"""What a data set is here: three parts of uint8 images, and how they become what a model takes."""

from __future__ import annotations

from collections.abc import Callable
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


#: (images uint8 [B, C, h, w] of `Splits.train`, generator) -> uint8 [B, C, H, W], what a model is trained on.
Make = Callable[[Tensor, torch.Generator], Tensor]


class Splits(NamedTuple):
    """Three parts of a data set, each uint8 [n, C, H, W] with values 0 to 255 (0 and 255 where it is binary), never empty.

    labels: class numbers, where they are known.
    make:   where it is not None, images of `train` are only what a batch is made of, anew each time it is drawn:
            `make(train[rows], generator)` gives it, its labels those of the rows. The images may be on any device, the
            generator on that device or the CPU. Images of `validation` and `test` are always finished and never change.
    classes: the names of the classes by their numbers, where folders gave them.
    notes:  what a user should know of how these came about: what was left out, dealt out, taken for something else.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    labels: Labels | None = None
    make: Make | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a model gets: of finished images, which those of `train` need not be."""
        channels, height, width = self.validation.shape[1:]
        return int(channels), int(height), int(width)


def images(batch: Tensor) -> Tensor:
    """uint8 [B, C, H, W] as the model takes it: float32 in [0, 1]."""
    return batch.float() / 255


def binarize(batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Dynamic binarisation: uint8 [B, C, H, W] -> float32 of 0 and 1, each pixel one with probability pixel / 255."""
    return torch.bernoulli(images(batch), generator=generator)


#: (images uint8 [n, C, H, W], class numbers [n] where they are known) of each part that a source has.
Parts = dict[str, tuple[np.ndarray, np.ndarray | None]]


def check_shape(parts: Parts, shape: tuple[int, int, int], where: object) -> Parts:
    """Refuses images that are not [C, H, W] of this shape."""
    for part, (pixels, _) in parts.items():
        if pixels.shape[1:] != shape:
            raise DataError(f"{where}: expected images of shape {list(shape)}, got {list(pixels.shape[1:])} in {part}")
    return parts


def complete(parts: Parts, name: str, most_validation: int | None = None) -> Splits:
    """Splits from what there is. Of validation and test, what is missing is dealt out of train, a tenth of that each.

    The deal never changes: it depends on the number of images alone. Raises DataError where there are too few of them.
    most_validation: images that are dealt out at most, for each of the two.
    """
    missing = [part for part in ("validation", "test") if part not in parts]
    told = f"{' and '.join(missing)} dealt out of train"
    if missing and isinstance(parts["train"][0], np.memmap):
        # Rows from anywhere would be a copy of them all.
        (pixels, labels), told = parts["train"], f"{' and '.join(missing)} are the last of train, which is mapped"
        for part, end in _cut(len(pixels), missing, name, most_validation).items():
            parts = {**parts, part: (pixels[end], None if labels is None else labels[end])}
    elif missing:
        pixels, labels = parts["train"]
        for part, rows in deal(len(pixels), missing, name, most_validation).items():
            parts = {**parts, part: (pixels[rows], None if labels is None else labels[rows])}
    ordered = [parts[part] for part in ("train", "validation", "test")]
    train, validation, test = (torch.from_numpy(_own(pixels)) for pixels, _ in ordered)
    known = [torch.from_numpy(labels.astype(np.int64)) for _, labels in ordered if labels is not None]
    notes = [told] * bool(missing)
    if 0 < len(known) < 3:
        notes.append("no labels: some splits have none")
    return Splits(train, validation, test, name, Labels(*known) if len(known) == 3 else None, notes=tuple(notes))


def _own(pixels: np.ndarray) -> np.ndarray:
    """In memory of its own, or mapped, so that no split keeps that of another alive; a copy only where it is not so yet."""
    if isinstance(pixels, np.memmap):
        return pixels
    return pixels if pixels.flags.owndata and pixels.flags.c_contiguous else np.array(pixels, order="C")


def deal(n: int, parts: list[str], name: str, most: int | None = None) -> dict[str, np.ndarray]:
    """A tenth each (at least one) of the images 0 .. n-1 for `parts`, the others for train; each in ascending order."""
    tenth = min(max(1, round(n / 10)), most or n)
    if n <= len(parts) * tenth:
        raise DataError(f"{name}: expected at least {len(parts) + 1} images to train and to test on, got {n}")
    # RandomState: numpy promises that its numbers stay the same in every version.
    order = np.random.RandomState(0).permutation(n)
    lots = {part: order[i * tenth : (i + 1) * tenth] for i, part in enumerate(parts)}
    return {part: np.sort(rows) for part, rows in {**lots, "train": order[len(parts) * tenth :]}.items()}


def _cut(n: int, parts: list[str], name: str, most: int | None = None) -> dict[str, slice]:
    """As many as `deal` gives each part, but the last ones, one part after the other."""
    counts = {part: len(rows) for part, rows in deal(n, parts, name, most).items() if part != "train"}
    cut, stop = {}, n
    for part, count in reversed(counts.items()):
        cut[part] = slice(stop - count, stop)
        stop -= count
    return {**cut, "train": slice(0, stop)}
