"""How an image lies in memory, for every backend that takes images of any strides."""

from __future__ import annotations

from torch import Tensor


def strides(image: Tensor) -> tuple[int, ...]:
    """Of images, channels, rows and pixels. Those of dimensions of size 1 mean nothing, and may be anything: they are what
    they would be in a contiguous image."""
    shape, (_, _, row, pixel) = image.shape, image.stride()
    if 1 not in shape:
        return image.stride()
    pixel = pixel if shape[3] > 1 else 1
    row = row if shape[2] > 1 else shape[3] * pixel
    return (*(stride if n > 1 else 0 for n, stride in zip(shape[:2], image.stride()[:2], strict=True)), row, pixel)
