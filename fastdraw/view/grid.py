"""Images in a grid, alone or beside what they are compared with, as PNG."""

from __future__ import annotations

import math
import os

import numpy as np
from torch import Tensor

from fastdraw.checks import check_size, check_tensor
from fastdraw.view import picture


def save_grid(
    images: Tensor, path: str | os.PathLike[str], columns: int | None = None, scale: int | None = None, padding: int = 4
) -> None:
    """Writes a PNG of the images, row by row.

    images:  float [n, C, H, W] in [0, 1], C one or three, n at least one.
    columns: images in a row; None: as many as make the grid square.
    scale:   pixels along each side of an enlarged pixel; None: such that an image is about 112 pixels long.
    padding: pixels between images and round them.

    The file at `path` is the old one until the new one is whole. Raises ValueError or TypeError naming the argument, OSError
    where the file cannot be written, and ModuleNotFoundError without Pillow.
    """
    tiles = _tiles("images", images, scale)
    picture.save_png(path, picture.tile(tiles, columns, padding))


def save_pairs(
    images: Tensor,
    others: Tensor,
    path: str | os.PathLike[str],
    columns: int | None = None,
    scale: int | None = None,
    padding: int = 4,
) -> None:
    """Writes a PNG of pairs, without a gap within a pair: images[i] at the left, others[i] at its right.

    For images beside their reconstructions, or samples beside their nearest training images (figure 6 of the paper).
    images, others: float [n, C, H, W] in [0, 1], of the same shape. columns: pairs in a row; None: such that the
    grid is about square. Other arguments, what is written
    and what is raised as in `save_grid`.
    """
    images = check_tensor("images", images, "n", "C", "H", "W")
    others = check_tensor("others", others, *images.shape)
    tiles = np.concatenate([_tiles("images", images, scale), _tiles("others", others, scale)], axis=2)
    if columns is None:
        # A pair is twice as wide as high; no row is left with a few, where that makes the grid at most twice as wide.
        least = math.ceil(math.sqrt(len(tiles) / 2))
        columns = next((c for c in range(least, 2 * least) if len(tiles) % c == 0), least)
    picture.save_png(path, picture.tile(tiles, check_size("columns", columns), padding))


def _tiles(name: str, images: Tensor, scale: int | None) -> np.ndarray:
    tiles = picture.to_bytes(name, images)
    return picture.enlarge(tiles, picture.default_scale(scale, *tiles.shape[1:3]))
