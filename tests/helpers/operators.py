"""The operators beside their specification, with inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastdraw
from fastdraw import reference
from fastdraw.testing import prove


class Operator(NamedTuple):
    """An operator, what it has to equal, its float64 inputs, and which of them is params, if any."""

    function: Callable[..., Any]
    specification: Callable[..., Any]
    inputs: list[Tensor]
    params: int | None

    def prove(self, dtype: torch.dtype, device: str | None = None, wide: Sequence[int] = (), **options: Any) -> None:
        prove(self.function, self.specification, self.inputs, dtype, self.params, wide, device, **options)


def moderate_params(*sizes: int) -> Tensor:
    """Ordinary windows: partly outside, seldom wholly."""
    return torch.randn(*sizes, 5, dtype=torch.float64) * torch.tensor([0.7, 0.7, 1.0, 0.7, 0.7], dtype=torch.float64)


def own_params(*sizes: int) -> Tensor:
    """The same with a sigma and a stride of its own for each axis."""
    scale = torch.tensor([0.6, 0.6, 1.0, 1.0, 0.7, 0.7, 0.7], dtype=torch.float64)
    return torch.randn(*sizes, 7, dtype=torch.float64) * scale


#: Filters of a patch: a number, or rows and columns.
Size = int | tuple[int, int]


def _several(b: int, k: int | None) -> tuple[int, ...]:
    return (b,) if k is None else (b, k)


def read(
    b: int, c: int, h: int, w: int, n: Size, k: int | None = None, params: Tensor | None = None, image: Any = torch.randn
) -> Operator:
    """Of k windows of each image, where k is given. params: random ones otherwise. image: what makes images."""
    params = moderate_params(*_several(b, k)) if params is None else params
    pair = (lambda i, p: fastdraw.read(i, p, n), lambda i, p: reference.read(i, p, n))
    return Operator(*pair, [image(b, c, h, w, dtype=torch.float64), params], 1)


def write(b: int, c: int, h: int, w: int, n: Size, k: int | None = None, params: Tensor | None = None) -> Operator:
    params = moderate_params(*_several(b, k)) if params is None else params
    pair = (lambda q, p: fastdraw.write(q, p, (h, w)), lambda q, p: reference.write(q, p, (h, w)))
    sides = (n, n) if isinstance(n, int) else n
    return Operator(*pair, [torch.randn(*_several(b, k), c, *sides, dtype=torch.float64), params], 1)


def filterbank(b: int, c: int, h: int, w: int, n: Size, k: None = None, params: Tensor | None = None) -> Operator:
    pair = (lambda p: fastdraw.filterbank(p, n, (h, w)), lambda p: reference.filterbank(p, n, (h, w)))
    return Operator(*pair, [moderate_params(b) if params is None else params], 0)


def lstm_step(b: int, i: int, h: int, normal: bool = True) -> Operator:
    """normal: weights and biases; otherwise uniform and small, as a new layer has them."""
    shapes = [(4 * h, i), (4 * h, h), (4 * h,), (4 * h,)]
    states = [torch.randn(b, size, dtype=torch.float64) for size in (i, h, h)]
    if normal:
        weights = [torch.randn(shape, dtype=torch.float64) / (h**0.5 if len(shape) == 2 else 1) for shape in shapes]
    else:
        weights = [torch.empty(shape, dtype=torch.float64).uniform_(-(h**-0.5), h**-0.5) for shape in shapes]
    pair = (
        lambda x, hidden, c, *w: fastdraw.lstm_step(x, (hidden, c), *w),
        lambda x, hidden, c, *w: reference.lstm_step(x, (hidden, c), *w),
    )
    return Operator(*pair, [*states, *weights], None)


#: By name: what takes (b, c, h, w, n).
WINDOWED = {"read": read, "write": write, "filterbank": filterbank}
