"""The windows that are profiled, and what they see of their images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastdraw import reference
from fastdraw.profile.cost import Support
from fastdraw.profile.shapes import Glimpses

#: Pixels further from a filter than this many sigma add nothing that float32 (or half precision, summed in it) could hold.
REACH = math.sqrt(2 * 20.0)


def params(shape: Glimpses) -> Tensor:
    """float64 [B, 5], or [B, K, 5] of several windows: anywhere in the image as far as they fit, sigma half the stride."""
    stride = shape.window * (max(shape.height, shape.width) - 1) / max(shape.size - 1, 1)
    free = max(0.0, 1 - shape.window)
    generator = torch.Generator().manual_seed(0)
    centres = (2 * torch.rand(shape.batch, shape.windows, 2, generator=generator, dtype=torch.float64) - 1) * free
    # A window of no width, in an image of one pixel, has no logarithm.
    rest = [2 * math.log(max(stride, 1e-3) / 2), math.log(shape.window), 0.0]
    tail = torch.tensor(rest, dtype=torch.float64).expand(shape.batch, shape.windows, 3)
    found = torch.cat([centres, tail], 2)
    return found if shape.windows > 1 else found[:, 0]


def support(shape: Glimpses) -> Support:
    """What the windows of `params` see: pixels further than REACH sigma from every filter are not counted."""
    window = reference.window(params(shape).flatten(0, -2), shape.size, (shape.height, shape.width))
    indices = torch.arange(shape.size, dtype=torch.float64) - (shape.size - 1) / 2
    (seen_y, bands_y), (seen_x, bands_x) = (
        _axis(centre[:, None] + indices * window.delta[:, None], REACH * window.sigma[:, None], length)
        for centre, length in ((window.centre_y, shape.height), (window.centre_x, shape.width))
    )
    pixels = int((seen_y * seen_x).sum())
    first = int((bands_y * seen_x).sum())
    second = int(shape.size * bands_x.sum())
    return Support(pixels, first, second)


def _axis(mu: Tensor, reach: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Pixels along an axis that some filter of a window sees, and the sum of those that each one sees; [B K] both."""
    nearest = mu.round().clamp(0, length - 1)
    low = torch.minimum((mu - reach).ceil().clamp(0, length - 1), nearest)
    high = torch.maximum((mu + reach).floor().clamp(0, length - 1), nearest)
    bands = high - low + 1
    # Filters stand in rising order: what lies between two of them and is seen by neither is not counted.
    overlap = (high[:, :-1] - low[:, 1:] + 1).clamp(min=0)
    return bands.sum(1) - overlap.sum(1), bands.sum(1)
