"""The glimpse as a module, for models that are not DRAW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from fastdraw import checks
from fastdraw.ops.read import read
from fastdraw.ops.write import write


class GaussianGlimpse(nn.Module):
    """A differentiable N x N glimpse anywhere in an image, at any zoom, and its transpose, which draws.

        glimpse = fastdraw.GaussianGlimpse(12)
        params = nn.Linear(256, 5)(state)             # [B, 5]; or K windows of each image, [B, K, 5]
        patch = glimpse(image, params)                # [B, C, 12, 12]; or [B, K, C, 12, 12]
        drawn = glimpse.write(patch, params, (H, W))  # [B, C, H, W]; K windows are summed

    size  N >= 1, samples along each side, or (N_y, N_x). The module has no weights: `params` come from a layer of yours, and
          say where the window stands, how far its samples lie apart, how wide each one is, and by what the patch is
          multiplied; see `fastdraw.read` for their order and `fastdraw.reference.window` for what they mean in pixels.

    How it differs from what PyTorch and torchvision have:

    `torch.nn.functional.grid_sample` looks at the four pixels around each sample. Where samples lie more than a pixel apart it
    passes over the pixels between: the patch is aliased, and the gradient to the window says only how those four pixels
    differ. Here each sample is a Gaussian average whose width is one of the params: with sigma at half the stride or more
    nothing is passed over, and the window is drawn by everything within a few sigma. At the image's edge grid_sample mixes
    padding in; here the weights of the pixels that exist sum to one. grid_sample takes any grid, rotated or bent; this window
    is upright, with one stride and one width for both axes, or with its own for each: params of 7 numbers.

    `torchvision.ops.roi_align` averages several bilinear samples a cell, which tempers aliasing. It has no gradient to the
    boxes, so it cannot learn where to look. Neither of the two has a transpose that draws.

    Raises TypeError or ValueError, naming the argument, as `fastdraw.read` and `fastdraw.write` do.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        super().__init__()
        rows, columns = checks.check_sides("size", size)
        self.size = rows if rows == columns else (rows, columns)

    if TYPE_CHECKING:

        def __call__(self, image: Tensor, params: Tensor) -> Tensor: ...

    def forward(self, image: Tensor, params: Tensor) -> Tensor:
        """`fastdraw.read`: image [B, C, H, W] and params [B, 5] -> [B, C, N, N], or [B, K, 5] -> [B, K, C, N, N]."""
        return read(image, params, self.size)

    def write(self, patch: Tensor, params: Tensor, image_size: tuple[int, int]) -> Tensor:
        """`fastdraw.write`: patch [B, C, N, N] or [B, K, C, N, N], params [B, 5] or [B, K, 5] -> image [B, C, H, W]."""
        sides = checks.check_sides("size", self.size)
        if isinstance(patch, Tensor) and (patch.dim() < 2 or patch.shape[-2:] != sides):
            raise checks.expected("patch", f"shape [..., {sides[0]}, {sides[1]}]", patch)
        return write(patch, params, image_size)

    def extra_repr(self) -> str:
        return f"size={self.size}"
