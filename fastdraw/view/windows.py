"""The window of a glimpse, drawn on an enlarged image: a rectangle whose lines are sigma wide."""

from __future__ import annotations

import numpy as np
import torch

from fastdraw.checks import check_size, check_tensor, expected
from fastdraw.reference import Window

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


def outline(window: np.ndarray, height: int, width: int, scale: int) -> np.ndarray:
    """bool [height scale, width scale]: the pixels of the rectangle round the N x N filter centres of one window.

    A window that reaches over the border is drawn along the border there. One that lies wholly outside, or is not finite,
    has no pixels.
    """
    if not np.isfinite(window).all():
        return np.zeros((height * scale, width * scale), bool)
    x, y, half, sigma = window
    line = min(max(sigma, 1 / scale), max(WIDEST_LINE * min(height, width), 1 / scale))
    distance_x, outside_x = _distance(x, half, line, width, scale)
    distance_y, outside_y = _distance(y, half, line, height, scale)
    # From the rectangle's border, positive outside of it. Half-open, so that a line one pixel wide is never two, nor none.
    distance = np.maximum(distance_x, distance_y[:, None])
    return (distance >= -line / 2) & (distance < line / 2) & (not (outside_x or outside_y))


def _distance(centre: float, half: float, line: float, length: int, scale: int) -> tuple[np.ndarray, bool]:
    """Of each enlarged pixel along one axis from the rectangle's nearer side; and whether the rectangle misses the axis."""
    low, high = centre - half, centre + half
    if high < -0.5 or low > length - 0.5:
        return np.zeros(length * scale), True
    # Pixels are squares of side one round their whole-numbered centres: the image reaches from -1/2 to length - 1/2.
    first, last = (line - 1) / 2, length - (line + 1) / 2
    low, high = np.clip([low, high], first, last)
    position = (np.arange(length * scale) + 0.5) / scale - 0.5
    return np.maximum(low - position, position - high), False
