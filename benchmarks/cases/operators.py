"""The cases of the operators on small images, with windows as a model in training has them."""

from __future__ import annotations

import torch
from torch import Tensor

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends
from fastdraw import reference
from fastdraw.profile import cases, cost, peers
from fastdraw.profile.cases import Case, glimpse_function, operator_case
from fastdraw.profile.peers import Peer
from fastdraw.profile.shapes import Step
from fastdraw.testing import Function


def window_params(batch: int) -> Tensor:
    """float64 [B, 5]: anywhere in the image, of about half its size."""
    return torch.randn(batch, 5, dtype=torch.float64) * 0.5 + torch.tensor([0.0, 0.0, -0.5, -0.5, 0.0], dtype=torch.float64)


def _compiled(plain: Function, wanted: bool) -> list[Peer]:
    return [Peer("torch.compile", torch.compile(plain, dynamic=False))] if wanted and DEVICE == "cuda" else []


def read_case(b: int, c: int, h: int, w: int, n: int, precision: str = "float32", compiled: bool = False) -> Case:
    return _glimpse("read", b, c, h, w, n, precision, compiled)


def write_case(b: int, c: int, h: int, w: int, n: int, precision: str = "float32", compiled: bool = False) -> Case:
    return _glimpse("write", b, c, h, w, n, precision, compiled)


def _glimpse(operator: str, b: int, c: int, h: int, w: int, n: int, precision: str, compiled: bool) -> Case:
    """The least cost is that of dense windows."""
    own, plain = (glimpse_function(module, operator, n, (h, w)) for module in (fastdraw, reference))
    dense = peers.einsum_read(n) if operator == "read" else peers.einsum_write((h, w))
    least, first = (cost.read, (b, c, h, w)) if operator == "read" else (cost.write, (b, c, n, n))
    return operator_case(
        f"{operator} {b}x{c}x{h}x{w}, N={n}",
        f"forward and backward, gradients to {'image' if operator == 'read' else 'patch'} and params",
        lambda e: least(b, c, h, w, n, e),
        own,
        plain,
        [Peer("reference", plain), *([Peer("einsum", dense)] if DEVICE == "cuda" else []), *_compiled(plain, compiled)],
        lambda: [torch.rand(first), window_params(b)],
        precision,
        DEVICE,
        fastdraw_backends(),
        wide=[1],
    )


def filterbank_case(b: int, h: int, w: int, n: int, compiled: bool = False) -> Case:
    def plain(params: Tensor) -> tuple[Tensor, ...]:
        return reference.filterbank(params, n, (h, w))

    return operator_case(
        f"filterbank {b}x{h}x{w}, N={n}",
        "forward and backward, gradient to params",
        lambda e: cost.filterbank(b, h, w, n, e),
        lambda params: fastdraw.filterbank(params, n, (h, w)),
        plain,
        [Peer("reference", plain), *_compiled(plain, compiled)],
        lambda: [window_params(b)],
        "float32",
        DEVICE,
        fastdraw_backends(),
    )


def lstm_case(b: int, i: int, h: int, precision: str = "float32", compiled: bool = False) -> Case:
    names = ["reference", "LSTMCell", *(["compile"] if compiled and DEVICE == "cuda" else [])]
    return cases.case(Step(b, i, h), precision, DEVICE, fastdraw_backends(), names)
