"""Images in a grid, as PNG."""

from __future__ import annotations

import os

from torch import Tensor

from fastdraw.data.splits import needs_extra
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
    with needs_extra("drawing pictures"):
        from PIL import Image
    tiles = picture.to_bytes("images", images)
    tiles = picture.enlarge(tiles, picture.default_scale(scale, *tiles.shape[1:3]))
    result = Image.fromarray(picture.tile(tiles, columns, padding))
    picture.save(path, lambda file: result.save(file, "PNG", optimize=True))
