"""The glimpse as a module, for models that are not DRAW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastdraw import checks
from fastdraw.ops.read import read
from fastdraw.ops.write import write
from fastdraw.reference import param_limits, stride_unit


class GaussianGlimpse(nn.Module):
    """A differentiable N x N glimpse anywhere in an image, at any zoom, and its transpose, which draws.

        glimpse = fastdraw.GaussianGlimpse(12)
        params = nn.Linear(256, 5)(state)             # [B, 5]; or K windows of each image, [B, K, 5]
        patch = glimpse(image, params)                # [B, C, 12, 12]; or [B, K, C, 12, 12]
        drawn = glimpse.write(patch, params, (H, W))  # [B, C, H, W]; K windows are summed

    size  N >= 1, samples along each side, or (N_y, N_x). The module has no weights: `params` come from a layer of yours, and
          say where the window stands, how far its samples lie apart, how wide each one is, and by what the patch is
          multiplied; see `fastdraw.read` for their order and `fastdraw.reference.window` for what they mean in pixels.
    antialias  True: sigma is at least half the stride, along either axis, whatever params say: what lies between samples is
          never passed over. A sigma that they say wider is kept as it is; of a narrower one the stride's number alone has a
          gradient. A single sample has no stride, and keeps its sigma. False: sigma is the params' own.

    How it differs from what PyTorch and torchvision have:

    `torch.nn.functional.grid_sample` looks at the four pixels around each sample. Where samples lie more than a pixel apart it
    passes over the pixels between: the patch is aliased, and the gradient to the window says only how those four pixels
    differ. Here each sample is a Gaussian average whose width is one of the params: with sigma at half the stride or more,
    which `antialias` sees to, nothing is passed over, and the window is drawn by everything within a few sigma. At the
    image's edge grid_sample mixes padding in; here the weights of the pixels that exist sum to one. grid_sample takes any
    grid, rotated or bent; this window is upright, with one stride and one width for both axes, or its own for each: params of
    7 numbers.

    `torchvision.ops.roi_align` averages several bilinear samples a cell, which tempers aliasing. It has no gradient to the
    boxes, so it cannot learn where to look; `fastdraw.crop` takes its boxes, and has. Neither of the two has a transpose that
    draws.

    Raises TypeError or ValueError, naming the argument, as `fastdraw.read` and `fastdraw.write` do.
    """

    def __init__(self, size: int | tuple[int, int], antialias: bool = False) -> None:
        super().__init__()
        rows, columns = checks.check_sides("size", size)
        if not isinstance(antialias, bool):
            raise checks.expected("antialias", "True or False", antialias, TypeError)
        self.size = rows if rows == columns else (rows, columns)
        self.antialias = antialias

    if TYPE_CHECKING:

        def __call__(self, image: Tensor, params: Tensor) -> Tensor: ...

    def forward(self, image: Tensor, params: Tensor) -> Tensor:
        """`fastdraw.read`: image [B, C, H, W] and params [B, 5] -> [B, C, N, N], or [B, K, 5] -> [B, K, C, N, N]."""
        if self.antialias:
            params = self._placed(params, image.shape[2:] if isinstance(image, Tensor) else ())
        return read(image, params, self.size)

    def write(self, patch: Tensor, params: Tensor, image_size: tuple[int, int]) -> Tensor:
        """`fastdraw.write`: patch [B, C, N, N] or [B, K, C, N, N], params [B, 5] or [B, K, 5] -> image [B, C, H, W]."""
        sides = checks.check_sides("size", self.size)
        if isinstance(patch, Tensor) and (patch.dim() < 2 or patch.shape[-2:] != sides):
            raise checks.expected("patch", f"shape [..., {sides[0]}, {sides[1]}]", patch)
        if self.antialias:
            params = self._placed(params, checks.check_pair("image_size", image_size))
        return write(patch, params, image_size)

    def _placed(self, params: Tensor, image_size: Sequence[int]) -> Tensor:
        """Params whose sigma is half the stride at least. What is no params at all goes on, to be refused with a sentence."""
        if not isinstance(params, Tensor) or not params.is_floating_point() or params.dim() < 1 or len(image_size) != 2:
            return params
        if params.shape[-1] not in (5, 7):
            return params
        sides = checks.check_sides("size", self.size)
        unit, own = stride_unit(sides, image_size), params.shape[-1] == 7
        limit = param_limits(5)[3]
        # bfloat16 could not tell such a sigma from one below.
        columns = list((params if params.dtype == torch.float64 else params.float()).unbind(-1))
        for sigma, delta, count in ((2, 4, sides[1]), (3, 5, sides[0])) if own else ((2, 3, max(sides)),):
            if count > 1 and unit > 0:
                half = columns[delta].clamp(-limit, limit) + math.log(unit / 2)
                columns[sigma] = torch.maximum(columns[sigma], 2 * half)
        return torch.stack(columns, -1)

    def extra_repr(self) -> str:
        return f"size={self.size}" + (", antialias=True" if self.antialias else "")
