"""Crops of boxes of one size at random places, against what else there is to crop with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import fastdraw
from benchmarks.aliasing import Crop, installed, points, slices
from benchmarks.cases import DEVICE, fastdraw_backends
from fastdraw.profile import cost
from fastdraw.profile.cases import Case, operator_case
from fastdraw.profile.peers import Peer
from fastdraw.testing import Function

#: Filters reach so many sigmas (kernels/cpu/support.h).
REACH = 6.3


def plain(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    with fastdraw.backend("reference"):
        return fastdraw.crop(image, boxes, size)


def _differentiable(crop: Crop, size: int, image: Tensor, boxes: Tensor) -> Tensor:
    """Of a method without a gradient to the boxes, with none in the end."""
    return crop(image, boxes, size) + 0 * boxes.sum()


def crop_case(
    batch: int,
    side: int,
    windows: int,
    box: int,
    size: int,
    others: tuple[str, ...] = ("grid_sample",),
    image_gradient: bool = False,
    as_bytes: bool = False,
    channels: int = 3,
) -> Case:
    """others: "grid_sample", by a point a sample and by 8 x 8; "interpolate", of slices and without a gradient to the boxes;
    "pyramid", built before. as_bytes: the image is uint8, beside the same numbers in float32."""
    torch.manual_seed(0)
    image = torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8)
    places = torch.rand(batch, windows, 2) * (side - box)
    boxes = torch.cat([places, places + box], -1)
    sigma = max(0.5 * box / size, 0.5)
    across, band = (min(side, round(length + 2 * REACH * sigma)) for length in (box, 0))
    count = batch * windows
    seen = cost.Support(count * across**2, count * size * band * across, count * size**2 * band)
    peers = [Peer("reference", partial(plain, size=size))]
    own: Function = partial(fastdraw.crop, size=size)
    if as_bytes:
        bytes_there = image.to(DEVICE)
        peers.append(Peer("fastdraw, of float32", own))
        own = lambda _, boxes: fastdraw.crop(bytes_there, boxes, size)  # noqa: E731
    if "grid_sample" in others:
        peers.append(Peer("~ grid_sample", partial(points, size=size), approximate="a bilinear sample"))
        peers.append(
            Peer("~ grid_sample, 8 x 8", partial(points, size=size, each=8), approximate="a mean of bilinear samples")
        )
        for name, crop in installed().items():
            peers.append(Peer(f"~ {name}", partial(_differentiable, crop, size), approximate="bilinear samples"))
    if "interpolate" in others:
        still = partial(_differentiable, slices, size)
        peers.append(Peer("~ interpolate(antialias)", still, approximate="triangles over whole pixels"))
    if "pyramid" in others:
        pyramid = fastdraw.Pyramid(image.float().to(DEVICE))
        peers.append(
            Peer("~ Pyramid", lambda _, boxes: pyramid.crop(boxes, size), approximate="smaller levels, within a bound")
        )
    return operator_case(
        f"crop {batch}x{channels}x{side}x{side}, {windows} of {size} over {box} px{', uint8' if as_bytes else ''}",
        f"forward and gradients to boxes{' and image' if image_gradient else ''}",
        lambda itemsize: cost.read_support(batch, channels, windows, size, seen, itemsize, side**2 if image_gradient else 0),
        own,
        partial(plain, size=size),
        peers,
        lambda: [image.float(), boxes],
        "float32",
        DEVICE,
        fastdraw_backends()[:1],
        wide=[1],
        constants=() if image_gradient else [0],
        batch=batch,
    )


CROPS: dict[str, Callable[[], Case]] = {
    "many-small-windows": partial(crop_case, 256, 224, 16, 56, 16),
    "megapixel": partial(crop_case, 4, 1024, 1, 256, 32, ("grid_sample", "interpolate")),
    "sixteen-megapixels-whole": partial(crop_case, 1, 4096, 1, 4096, 64, ("grid_sample", "pyramid")),
    "sixteen-megapixels-bytes": partial(crop_case, 1, 4096, 1, 410, 64, (), as_bytes=True),
}
