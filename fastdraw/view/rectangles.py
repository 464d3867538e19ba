"""The window of a glimpse, drawn on an enlarged image: a rectangle whose line is sigma wide."""

from __future__ import annotations

import numpy as np
import torch

from fastdraw.checks import check_size, check_tensor, expected
from fastdraw.outputs import Window

#: Lines are no wider than this part of the image's shorter side; a wider one would hide the image.
WIDEST_LINE = 1 / 8


def to_numpy(name: str, windows: Window | None, size_name: str, size: int | None, shape: tuple[int, int]) -> np.ndarray | None:
    """[T, n, 4] of (centre x, centre y, half side, sigma) in pixels, from fields [T, n]; None where there is no attention."""
    if windows is None:
        return None
    if size is None:
        raise expected(size_name, f"the model's {size_name}, since there are {name}", size)
    size = check_size(size_name, size)
    for field, values in zip(windows._fields, windows, strict=True):
        check_tensor(f"{name}.{field}", values, *shape)
    half = (size - 1) / 2 * windows.delta
    return torch.stack([windows.centre_x, windows.centre_y, half, windows.sigma], -1).detach().cpu().double().numpy()


def paint(pixels: np.ndarray, window: np.ndarray, colour: tuple[int, int, int], scale: int) -> None:
    """Draws one window on an enlarged image, uint8 [height scale, width scale, 3]: the line through its outermost filters'
    centres, and along it a band as wide as sigma, which the image shows through.
    """
    height, width = pixels.shape[0] // scale, pixels.shape[1] // scale
    band = outline(window, height, width, scale)
    pixels[band] = (pixels[band].astype(np.uint16) + np.array(colour, np.uint16)) // 2
    pixels[outline(window, height, width, scale, widest=scale // 4)] = colour


def outline(window: np.ndarray, height: int, width: int, scale: int, widest: int | None = None) -> np.ndarray:
    """bool [height scale, width scale]: the pixels of the rectangle round the N x N filter centres of one window.

    Its line is as wide as sigma, but at least one enlarged pixel and at most `widest` of them. A window that reaches over the
    border is drawn along the border there. One that lies wholly outside, or is not finite, has no pixels.
    """
    mask = np.zeros((height * scale, width * scale), bool)
    if not np.isfinite(window).all():
        return mask
    x, y, half, sigma = window
    # Whole pixels, so that all four lines are equally wide.
    line = max(1, round(scale * min(sigma, WIDEST_LINE * min(height, width))))
    line = line if widest is None else max(1, min(line, widest))
    columns, rows = _lines(x, half, line, width, scale), _lines(y, half, line, height, scale)
    if columns is not None and rows is not None:
        (left, right), (top, bottom) = columns, rows
        mask[top : bottom + line, left : right + line] = True
        mask[top + line : bottom, left + line : right] = False
    return mask


def _lines(centre: float, half: float, line: int, length: int, scale: int) -> tuple[int, int] | None:
    """Where the two lines across one axis begin, in enlarged pixels; None where both lie outside on the same side."""
    low, high = centre - half, centre + half
    # Pixels are squares of side one round their whole-numbered centres: the image reaches from -1/2 to length - 1/2.
    if high < -0.5 or low > length - 0.5:
        return None
    first, last = (round(min(max((edge + 0.5) * scale - line / 2, 0), length * scale - line)) for edge in (low, high))
    return first, last
