"""Pictures put together from MNIST's digits: cluttered MNIST (Mnih et al. 2014) and two digits (Gregor et al. 2015).

Black canvas; pieces of random digits of the same split are added at random places; one whole digit is added at a random place;
values above white become white. (Clipping after each addition, as the original generator does, gives the same picture: nothing
that is added is negative.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdraw.data import mnist
from fastdraw.data.splits import Splits

#: (n, columns) -> int64 [B, columns], each 0 to n - 1 with equal probability.
Draw = Callable[[int, int], Tensor]
#: Images put together at a time: their canvases stay in the processor's cache.
CHUNK = 128


class Places(NamedTuple):
    """What is drawn for B pictures: int64 [B, pieces], and [B, 1] for the whole digit."""

    digit: Tensor
    #: The upper left pixel of each piece within its digit.
    top: Tensor
    left: Tensor
    #: The same pixel on the canvas.
    y: Tensor
    x: Tensor
    #: The whole digit's upper left pixel on the canvas.
    whole_y: Tensor
    whole_x: Tensor


@dataclass(frozen=True)
class Layout:
    """A canvas of `side` x `side` pixels with `pieces` pieces of `size` x `size`, and one whole digit on top."""

    side: int
    pieces: int
    size: int

    def draw(self, digits: Tensor, draw: Draw) -> Places:
        """Every digit, window and place with equal probability, independently; the same digit may come twice.

        digits: [n, 1, h, w], what pieces are taken from.
        """
        n, height, width = len(digits), *digits.shape[2:]
        return Places(
            draw(n, self.pieces),
            draw(height - self.size + 1, self.pieces),
            draw(width - self.size + 1, self.pieces),
            draw(self.side - self.size + 1, self.pieces),
            draw(self.side - self.size + 1, self.pieces),
            draw(self.side - height + 1, 1),
            draw(self.side - width + 1, 1),
        )

    def compose(self, images: Tensor, digits: Tensor, places: Places) -> Tensor:
        """uint8 [B, 1, side, side] of whole digits `images` uint8 [B, 1, h, w] and pieces of `digits` uint8 [n, 1, h, w]."""
        chunks = [
            self._compose(some, digits, Places(*where))
            for some, *where in zip(images.split(CHUNK), *(drawn.split(CHUNK) for drawn in places), strict=True)
        ]
        return torch.cat(chunks) if len(chunks) != 1 else chunks[0]

    def _compose(self, images: Tensor, digits: Tensor, places: Places) -> Tensor:
        windows = digits[:, 0].unfold(1, self.size, 1).unfold(2, self.size, 1)
        pieces = windows[places.digit, places.top, places.left].flatten(1)
        values = torch.cat((pieces, images.flatten(1)), dim=1)
        onto = torch.cat(
            (
                self._pixels(places.y, places.x, self.size, self.size),
                self._pixels(places.whole_y, places.whole_x, *images.shape[2:]),
            ),
            dim=1,
        )
        # int16 holds 128 times white, and sums of integers are the same in any order.
        canvas = torch.zeros(len(images), self.side * self.side, dtype=torch.int16, device=images.device)
        canvas.scatter_add_(1, onto, values.short())
        return canvas.clamp_(max=255).to(torch.uint8).view(-1, 1, self.side, self.side)

    def _pixels(self, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
        """Where on the flat canvas the rectangles at (y, x) lie: [B, pieces] -> [B, pieces * height * width]."""
        rows = torch.arange(height, device=y.device) * self.side
        rectangle = (rows[:, None] + torch.arange(width, device=y.device)).flatten()
        return ((y * self.side + x)[:, :, None] + rectangle).flatten(1)


class Composer:
    """A `Splits.make`: whole digits uint8 [B, 1, h, w] -> pictures uint8 [B, 1, side, side], with pieces of its own digits."""

    def __init__(self, layout: Layout, digits: Tensor) -> None:
        self.layout = layout
        # One copy on each device that it was used on.
        self._digits = {digits.device: digits}

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        def draw(n: int, columns: int) -> Tensor:
            drawn = torch.randint(n, (len(images), columns), generator=generator, device=generator.device)
            return drawn.to(images.device)

        if images.device not in self._digits:
            self._digits[images.device] = next(iter(self._digits.values())).to(images.device)
        digits = self._digits[images.device]
        return self.layout.compose(images, digits, self.layout.draw(digits, draw))


CLUTTERED = Layout(side=100, pieces=8, size=8)
CLUTTERED_60 = Layout(side=60, pieces=4, size=8)
TWO_DIGITS = Layout(side=60, pieces=1, size=28)


def load(layout: Layout, name: str, folder: Path | None, download: bool, progress: bool) -> Splits:
    """MNIST's digits to train on, and what `make` does to them; 10,000 finished pictures each to validate and to test on.

    The finished ones are always the same. Labels are those of the whole digit; of two digits there are none.
    """
    digits = mnist.load(folder, download, progress)
    # Seeds of their own: the same places under other digits would be no harm, but a surprise.
    validation = _fixed(layout, digits.validation, seed=1)
    test = _fixed(layout, digits.test, seed=2)
    labels = None if layout is TWO_DIGITS else digits.labels
    return Splits(digits.train, validation, test, name, labels, Composer(layout, digits.train))


def _fixed(layout: Layout, digits: Tensor, seed: int) -> Tensor:
    """One picture of each digit. Every number is drawn before the first picture is made, so chunks do not matter."""
    # RandomState: numpy promises that its numbers stay the same in every version.
    numbers = np.random.RandomState(seed)

    def draw(n: int, columns: int) -> Tensor:
        return torch.from_numpy(numbers.randint(n, size=(len(digits), columns), dtype=np.int64))

    return layout.compose(digits, digits, layout.draw(digits, draw))
