"""The cases of read and write at larger sizes, with the shapes, windows, peers and least costs of `fastdraw profile`.

LARGE: a window that sees a part of a large image. WIDE fill a GPU: large images in large batches, and very many small ones.
These are proven at a smaller batch, since float64 images of that size leave no room for anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from benchmarks.cases import DEVICE, fastdraw_backends
from fastdraw.profile.cases import Case, glimpse_case
from fastdraw.profile.shapes import Glimpses
from fastdraw.profile.timing import Variant

#: Images of the case that is proven.
PROVEN = 3


def large_case(shape: Glimpses, channels_last: bool = False) -> Case:
    """Against the dense form alone. Where the image wants a gradient, beside the allocation of one."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    case = glimpse_case(shape, "float32", DEVICE, fastdraw_backends(), ["reference"], form)
    case.title += ", channels last" if channels_last else ""
    if shape.image_gradient:
        like = torch.empty(shape.batch, shape.channels, shape.height, shape.width, device=DEVICE)
        zeros = Variant("torch.zeros_like(image)", lambda _: [torch.zeros_like(like)], proven=False)
        case.variants.append(zeros)
    return case


_MEGAPIXEL = Glimpses("read", 4, 3, 1024, 1024, 32, 0.25, image_gradient=False)
_ONE = replace(_MEGAPIXEL, batch=1)
_SIXTEEN = Glimpses("read", 1, 3, 4096, 4096, 64, 0.1, image_gradient=False)
LARGE: dict[str, Callable[[], Case]] = {
    "megapixel-params": partial(large_case, _MEGAPIXEL),
    "megapixel-image": partial(large_case, replace(_MEGAPIXEL, image_gradient=True)),
    "megapixel-channels-last": partial(large_case, _MEGAPIXEL, channels_last=True),
    "megapixel-four-windows": partial(large_case, replace(_ONE, windows=4)),
    "megapixel-whole": partial(large_case, replace(_ONE, window=1.0)),
    "sixteen-megapixels-params": partial(large_case, _SIXTEEN),
    "sixteen-megapixels-image": partial(large_case, replace(_SIXTEEN, image_gradient=True)),
}


def wide_case(shape: Glimpses, precision: str, *more_peers: str) -> Case:
    names = ["reference", "einsum", "grid_sample", *more_peers]
    case, twin = (
        glimpse_case(s, precision, DEVICE, fastdraw_backends()[:1], names)
        for s in (shape, replace(shape, batch=min(shape.batch, PROVEN)))
    )
    case.twin = twin
    return case


_READ = Glimpses("read", 256, 3, 1024, 1024, 32, 0.25, image_gradient=False)
_WRITE = Glimpses("write", 256, 3, 1024, 1024, 32, 0.25)
_MANY_READ, _MANY_WRITE = (Glimpses(operator, 65_536, 1, 28, 28, 12, 1.0) for operator in ("read", "write"))
WIDE: dict[str, Callable[[], Case]] = {
    "read, megapixels": partial(wide_case, _READ, "float32"),
    "write, megapixels": partial(wide_case, _WRITE, "float32"),
    "read, many": partial(wide_case, _MANY_READ, "float32", "compile", "jax"),
    "write, many": partial(wide_case, _MANY_WRITE, "float32", "compile", "jax"),
    "read, megapixels, image's gradient": partial(wide_case, replace(_READ, image_gradient=True), "float32"),
    "read, megapixels, half": partial(wide_case, _READ, "bfloat16"),
    "write, megapixels, half": partial(wide_case, _WRITE, "bfloat16"),
    "read, many, half": partial(wide_case, _MANY_READ, "bfloat16"),
    "write, many, half": partial(wide_case, _MANY_WRITE, "bfloat16"),
}
