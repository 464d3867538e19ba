"""The cases of the operators on small images, with windows as a model in training has them."""

from __future__ import annotations

import torch
from torch import Tensor

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends
from fastdraw import reference
from fastdraw.profile import cases, cost
from fastdraw.profile.cases import Case, operator_case
from fastdraw.profile.cost import Cost
from fastdraw.profile.peers import Peer
from fastdraw.profile.shapes import Glimpses, Step


def window_params(batch: int) -> Tensor:
    """float64 [B, 5]: anywhere in the image, of about half its size."""
    return torch.randn(batch, 5, dtype=torch.float64) * 0.5 + torch.tensor([0.0, 0.0, -0.5, -0.5, 0.0], dtype=torch.float64)


class SmallGlimpses(Glimpses):
    """With such windows. The least cost is that of dense ones."""

    @property
    def text(self) -> str:
        return f"{self.batch}x{self.channels}x{self.height}x{self.width}, N={self.size}"

    def params(self) -> Tensor:
        return window_params(self.batch)

    def cost(self, e: int) -> Cost:
        least = cost.read if self.operator == "read" else cost.write
        return least(self.batch, self.channels, self.height, self.width, self.size, e)


def read_case(*sides: int, precision: str = "float32", compiled: bool = False) -> Case:
    """sides: B, C, H, W, N. compiled: also by torch.compile, on a CUDA device."""
    return _case(SmallGlimpses("read", *sides), precision, ["einsum"] * (DEVICE == "cuda"), compiled)


def write_case(*sides: int, precision: str = "float32", compiled: bool = False) -> Case:
    return _case(SmallGlimpses("write", *sides), precision, ["einsum"] * (DEVICE == "cuda"), compiled)


def lstm_case(*sides: int, precision: str = "float32", compiled: bool = False) -> Case:
    """sides: B, inputs, hidden units."""
    return _case(Step(*sides), precision, ["LSTMCell"], compiled)


def _case(shape: Glimpses | Step, precision: str, peers: list[str], compiled: bool) -> Case:
    names = ["reference", *peers, *["compile"] * (compiled and DEVICE == "cuda")]
    return cases.case(shape, precision, DEVICE, fastdraw_backends(), names)


def filterbank_case(b: int, h: int, w: int, n: int, compiled: bool = False) -> Case:
    def plain(params: Tensor) -> tuple[Tensor, ...]:
        return reference.filterbank(params, n, (h, w))

    return operator_case(
        f"filterbank {b}x{h}x{w}, N={n}",
        "forward and backward, gradient to params",
        lambda e: cost.filterbank(b, h, w, n, e),
        lambda params: fastdraw.filterbank(params, n, (h, w)),
        plain,
        [Peer("reference", plain), *[cases.compiled(plain, DEVICE)] * (compiled and DEVICE == "cuda")],
        lambda: [window_params(b)],
        "float32",
        DEVICE,
        fastdraw_backends(),
    )
