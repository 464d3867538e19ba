"""Images over time with the windows on them: what films and strips are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdraw.checks import check_tensor, expected
from fastdraw.outputs import Trajectory, Window
from fastdraw.view import picture, rectangles

#: Told apart by everybody, also by those who do not tell red from green.
WRITE = (255, 48, 48)
READ = (40, 160, 255)


class Overlay(NamedTuple):
    """Windows to draw on images: fields [T, n], and N of their N x N filters."""

    colour: tuple[int, int, int]
    name: str
    windows: Window | None
    size_name: str
    size: int | None


class Scenes:
    """Images [T, n, C, H, W] in [0, 1], enlarged, with windows on them; overlays that come later lie on top."""

    def __init__(self, name: str, images: Tensor, overlays: Sequence[Overlay] = (), scale: int | None = None) -> None:
        self.name, self.images = name, check_tensor(name, images, "T", "n", "C", "H", "W")
        if 0 in images.shape:
            raise expected(name, "at least one glimpse of one image", images)
        self.height, self.width = int(images.shape[3]), int(images.shape[4])
        self.scale = picture.default_scale(scale, self.height, self.width)
        shape = (int(images.shape[0]), int(images.shape[1]))
        found = [(o.colour, rectangles.to_numpy(o.name, o.windows, o.size_name, o.size, shape)) for o in overlays]
        self.windows = [(colour, window) for colour, window in found if window is not None]

    def __len__(self) -> int:
        return len(self.images)

    def at(self, t: int, with_windows: bool = True) -> np.ndarray:
        """uint8 [n, H scale, W scale, 3] after glimpse t."""
        tiles = picture.enlarge(picture.to_bytes(self.name, self.images[t].float()), self.scale)
        for colour, found in self.windows if with_windows else ():
            for pixels, window in zip(tiles, found[t], strict=True):
                rectangles.paint(pixels, window, colour, self.scale)
        return tiles


def of_trajectory(trajectory: Trajectory, write_size: int | None, read_size: int | None, scale: int | None) -> Scenes:
    """The canvases [T, n, C, H, W] of a trajectory, with its write windows over its read windows."""
    check_trajectory(trajectory)
    overlays = (
        Overlay(READ, "read_windows", trajectory.read_windows, "read_size", read_size),
        Overlay(WRITE, "write_windows", trajectory.write_windows, "write_size", write_size),
    )
    canvases = check_tensor("canvases", trajectory.canvases, "T", "n", "C", "H", "W")
    return Scenes("canvases", torch.sigmoid(canvases.float()), overlays, scale)


def check_trajectory(value: object) -> None:
    if not isinstance(value, Trajectory):
        raise expected("trajectory", "a Trajectory, as sample(n, return_trajectory=True) gives", value, TypeError)


def evenly(n: int, count: int) -> list[int]:
    """At most `count` of 0 .. n-1, evenly spaced, the last one with them, the first too where there is room for two."""
    return list(range(n)) if n <= count else [round(i) for i in np.linspace(n - 1, 0, count)[::-1]]
