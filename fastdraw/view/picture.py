"""What all pictures are made of: tiles of pixels, a grid of them, and a file that is whole or not there."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from fastdraw.checks import check_size, check_tensor, check_unit_interval, expected
from fastdraw.files import write_atomically
from fastdraw.installed import needs_extra

#: Between tiles: a grey that neither ink nor paper comes close to in hue, told apart on white and on dark pages.
GAP = (104, 110, 122)
#: Pixels that the longer side of an image is enlarged to, about, where no scale is given.
TILE = 112


def to_bytes(name: str, images: Tensor) -> np.ndarray:
    """float [n, C, H, W] in [0, 1], C one or three, no dimension empty -> uint8 [n, H, W, 3]. Raises ValueError, TypeError."""
    images = check_tensor(name, images, "n", "C", "H", "W").detach().cpu().float()
    if images.shape[1] not in (1, 3) or 0 in images.shape:
        raise expected(name, "at least one image of one or three channels", images)
    check_unit_interval(name, images)
    return (images * 255).round().byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()


def default_scale(scale: int | None, height: int, width: int) -> int:
    return max(1, round(TILE / max(height, width))) if scale is None else check_size("scale", scale)


def enlarge(images: np.ndarray, scale: int) -> np.ndarray:
    """uint8 [n, H, W, 3] -> [n, H scale, W scale, 3]: each pixel becomes a square."""
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def tile(tiles: np.ndarray, columns: int | None, padding: int) -> np.ndarray:
    """uint8 [n, h, w, 3] -> one picture, row by row, `padding` pixels round each; as square as it goes without `columns`."""
    n, height, width, _ = tiles.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(check_size("columns", columns), n)
    padding = check_size("padding", padding, least=0)
    rows = math.ceil(n / columns)
    shape = (rows * (height + padding) + padding, columns * (width + padding) + padding, 3)
    picture = np.broadcast_to(np.array(GAP, np.uint8), shape).copy()
    for i, pixels in enumerate(tiles):
        top, left = (padding + (i // columns) * (height + padding), padding + (i % columns) * (width + padding))
        picture[top : top + height, left : left + width] = pixels
    return picture


def encoded(write: Callable[[BinaryIO], object]) -> bytes:
    """What `write(file)` writes."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def save(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Calls `write(file)`; what it wrote stands at `path` once it is whole, and before that whatever stood there.

    Raises OSError (a full disk, a missing folder) and leaves nothing behind.
    """
    write_atomically(Path(path), encoded(write))


def save_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """uint8 [h, w, 3]; writes and raises as `save`."""
    with needs_extra("drawing pictures"):
        from PIL import Image
    save(path, lambda file: Image.fromarray(pixels).save(file, "PNG", optimize=True))
