"""Other ways to compute what fastdraw's operators compute, or nearly: what they are measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastdraw import reference
from fastdraw.testing import Function, as_list


class Peer(NamedTuple):
    """Another way to compute a case. approximate: why its results are others.

    differentiates: function(inputs, weights) itself gives outputs and gradients; what it launches torch's profiler cannot see.
    narrow: it takes every input in the case's dtype, those too that fastdraw takes in float32.
    """

    name: str
    function: Function
    approximate: str = ""
    differentiates: bool = False
    narrow: bool = False
    calls_seen: bool = True


#: Points along an axis that a sample of grid_sample's is the mean of: never more.
MOST_POINTS = 8


def einsum_read(size: int) -> Function:
    """The filterbanks by the reference, the products by one einsum; params [B, 5] or [B, K, 5]."""

    def read(image: Tensor, params: Tensor) -> Tensor:
        y, x, gamma = _filterbanks(params, size, (image.shape[2], image.shape[3]))
        patch = torch.einsum("bknh,bchw,bkmw,bk->bkcnm", y, image.to(y.dtype), x, gamma)
        return (patch if params.dim() == 3 else patch[:, 0]).to(image.dtype)

    return read


def einsum_write(image_size: tuple[int, int]) -> Function:
    def write(patch: Tensor, params: Tensor) -> Tensor:
        y, x, gamma = _filterbanks(params, patch.shape[-1], image_size)
        several = (patch if params.dim() == 3 else patch[:, None]).to(y.dtype)
        return torch.einsum("bknh,bkcnm,bkmw,bk->bchw", y, several, x, 1 / gamma).to(patch.dtype)

    return write


def _filterbanks(params: Tensor, size: int, image_size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """[B, K, N, H], [B, K, N, W] and [B, K]."""
    several = params if params.dim() == 3 else params[:, None]
    bank = reference.filterbank(several.flatten(0, 1), size, image_size)
    y, x, gamma = (matrix.unflatten(0, several.shape[:2]) for matrix in bank)
    return y, x, gamma


def grid_sample_read(size: int, stride: float) -> Function:
    """APPROXIMATE: bilinear samples on a grid no coarser than a pixel, averaged over cells as wide as the stride, in pixels.

    A box in place of a Gaussian, so the patch differs, and sigma has no part in it and no gradient; but it looks at the same
    pixels, and does not alias up to a stride of MOST_POINTS pixels. It is what people without Gaussian filters use.
    """
    points = min(MOST_POINTS, max(1, math.ceil(stride)))

    def read(image: Tensor, params: Tensor) -> Tensor:
        several = params if params.dim() == 3 else params[:, None]
        batch, windows = several.shape[:2]
        height, width = image.shape[2], image.shape[3]
        w = reference.window(several.flatten(0, 1), size, (height, width))
        # Cells of one stride around each of the N samples, with points in the middle of equal parts of them.
        offsets = (torch.arange(size * points, device=image.device, dtype=w.delta.dtype) + 0.5) / points - size / 2
        y, x = (
            (2 * (centre[:, None] + offsets * w.delta[:, None]) + 1) / length - 1
            for centre, length in ((w.centre_y, height), (w.centre_x, width))
        )
        count = size * points
        grid = torch.stack([x[:, None, :].expand(-1, count, -1), y[:, :, None].expand(-1, -1, count)], 3)
        # Windows of one image one below the other: the image is not copied for each.
        grid = grid.view(batch, windows * count, count, 2)
        sampled = functional.grid_sample(image.to(grid.dtype), grid, padding_mode="border", align_corners=False)
        patch = functional.avg_pool2d(sampled, points) if points > 1 else sampled
        patch = patch.unflatten(2, (windows, size)).movedim(2, 1) * w.gamma.view(batch, windows, 1, 1, 1)
        return (patch if params.dim() == 3 else patch[:, 0]).to(image.dtype)

    return read


def lstm_cell(x: Tensor, hidden: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """What nn.LSTMCell calls; it wants one dtype."""
    return torch.lstm_cell(x, (hidden, c), *weights)


class JaxGlimpse:
    """jax.jit of the dense read or write and its gradients: called, it gives what `differentiate` gives.

    Raises ModuleNotFoundError without JAX, RuntimeError where the tensors are on a GPU and JAX has none.
    """

    def __init__(self, operator: str, size: int, image_size: tuple[int, int]) -> None:
        self._operator, self._size, self._image_size = operator, size, image_size
        self._ready: Callable[[], Any] | None = None

    def __call__(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        import jax

        if self._ready is None:
            self._ready = self._compile(inputs, weights)
        with jax.default_matmul_precision("highest"):
            return [torch.from_dlpack(result) for result in jax.block_until_ready(self._ready())]

    def _compile(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp

        from fastdraw.profile.jax_draw import arrays_beside, filterbank

        array = arrays_beside(inputs[0])
        arrays, (weight,) = ([array(t.float()) for t in tensors] for tensors in (inputs, weights))

        def operator(first: Any, params: Any) -> Any:
            several = params if params.ndim == 3 else params[:, None]
            lead = several.shape[:2]
            y, x, gamma = filterbank(several.reshape(-1, 5), self._size, self._image_size)
            y, x, gamma = (matrix.reshape(*lead, *matrix.shape[1:]) for matrix in (y, x, gamma))
            if self._operator == "read":
                patch = gamma * jnp.einsum("bkcnw,bkmw->bkcnm", jnp.einsum("bknh,bchw->bkcnw", y, first), x)
                return patch if params.ndim == 3 else patch[:, 0]
            patch = (first if params.ndim == 3 else first[:, None]) / gamma
            return jnp.einsum("bknh,bkcnw->bchw", y, jnp.einsum("bkcnm,bkmw->bkcnw", patch, x))

        wanted = tuple(i for i, tensor in enumerate(inputs) if tensor.requires_grad)

        def both(*arrays: Any) -> Any:
            # Only what is wanted is differentiated.
            def of_wanted(*some: Any) -> Any:
                given = list(arrays)
                for i, value in zip(wanted, some, strict=True):
                    given[i] = value
                return operator(*given)

            result, pull = jax.vjp(of_wanted, *(arrays[i] for i in wanted))
            return result, *pull(weight)

        compiled = jax.jit(both)
        return lambda: compiled(*arrays)


def difference(outputs: Any, others: Any) -> float:
    """How far the first of `outputs` is from that of `others`, as a share of its length."""
    one, other = (as_list(each)[0].detach().double().flatten() for each in (outputs, others))
    length = float(other.norm())
    return float((one - other).norm()) / length if length else 0.0
