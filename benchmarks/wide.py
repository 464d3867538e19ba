"""The cases of read and write at sizes that fill a GPU: large images in large batches, and very many small ones.

Shapes, windows, peers and least costs are those of `fastdraw profile`: bytes are counted over what the windows see. Each case
is proven at a smaller batch, since float64 images of this size leave no room for anything else.
"""

from __future__ import annotations

from dataclasses import replace

import torch

import fastdraw
from benchmarks.cases import DEVICE, Case, fastdraw_backends, operator_case
from fastdraw import reference
from fastdraw.profile import cases, peers, windows
from fastdraw.profile.shapes import Glimpses

#: The specification's two products, by torch.bmm: dense over the image.
DENSE = "plain: two products"
PEERS = ("plain", "einsum", "grid_sample")
#: Images of the case that is proven.
PROVEN = 3
#: By name: the operator, its shape, the dtype, peers beyond PEERS.
CASES: dict[str, tuple[str, Glimpses, str, tuple[str, ...]]] = {
    "read, megapixels": ("read", Glimpses(256, 3, 1024, 1024, 32, 0.25, image_gradient=False), "float32", ()),
    "write, megapixels": ("write", Glimpses(256, 3, 1024, 1024, 32, 0.25), "float32", ()),
    "read, many": ("read", Glimpses(65_536, 1, 28, 28, 12, 1.0), "float32", ("compile", "jax")),
    "write, many": ("write", Glimpses(65_536, 1, 28, 28, 12, 1.0), "float32", ("compile", "jax")),
    "read, megapixels, image's gradient": ("read", Glimpses(256, 3, 1024, 1024, 32, 0.25), "float32", ()),
    "read, megapixels, half": ("read", Glimpses(256, 3, 1024, 1024, 32, 0.25, image_gradient=False), "bfloat16", ()),
    "write, megapixels, half": ("write", Glimpses(256, 3, 1024, 1024, 32, 0.25), "bfloat16", ()),
    "read, many, half": ("read", Glimpses(65_536, 1, 28, 28, 12, 1.0), "bfloat16", ()),
    "write, many, half": ("write", Glimpses(65_536, 1, 28, 28, 12, 1.0), "bfloat16", ()),
}


def title(operator: str, shape: Glimpses, dtype: str) -> str:
    return f"{operator} {shape.text}, {dtype}"


def wide_case(operator: str, shape: Glimpses, dtype: str, more_peers: tuple[str, ...] = ()) -> Case:
    profiled = _profiled(operator, shape, dtype, (*PEERS, *more_peers))
    entries, sets = profiled.entries()
    # The dense form is what ratios are taken to.
    variants = [e.variant._replace(name="reference") if e.variant.name == DENSE else e.variant for e in entries]
    nbytes = shape.batch * shape.channels * shape.height * shape.width * getattr(torch, dtype).itemsize
    twin = _twin(operator, replace(shape, batch=min(shape.batch, PROVEN)), dtype)
    name = title(operator, shape, dtype)
    return Case(
        name, profiled.measured, twin.dtype, dtype, profiled.cost, variants, twin.exact, sets, input_bytes=nbytes, twin=twin
    )


def _profiled(operator: str, shape: Glimpses, dtype: str, peers: tuple[str, ...]) -> cases.Case:
    return cases.Case(operator, shape, dtype, DEVICE, fastdraw_backends()[0], peers)


def _twin(operator: str, shape: Glimpses, dtype: str) -> Case:
    """The same functions on few images, with the exact results."""
    n, image_size = shape.size, (shape.height, shape.width)
    if operator == "read":
        first = (shape.batch, shape.channels, *image_size)
        functions = (lambda i, p: fastdraw.read(i, p, n), lambda i, p: reference.read(i, p, n), peers.einsum_read(n))
    else:
        first = (shape.batch, shape.channels, n, n)
        functions = (
            lambda q, p: fastdraw.write(q, p, image_size),
            lambda q, p: reference.write(q, p, image_size),
            peers.einsum_write(image_size),
        )
    own, plain, einsum = functions
    return operator_case(
        operator,
        "proof",
        lambda e: _profiled(operator, shape, dtype, ()).cost,
        own,
        plain,
        {"einsum": einsum},
        lambda: [torch.randn(first, dtype=torch.float64), windows.params(shape)],
        dtype,
        keep_wide=[1],
        constants=[] if shape.image_gradient else [0],
    )


def least_bytes(operator: str, shape: Glimpses, dtype: str) -> int:
    """As the case counts them, for goals that are shares of a copy's rate."""
    return _profiled(operator, shape, dtype, ()).cost.bytes
