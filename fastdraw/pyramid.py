"""Glimpses of wide windows at a cost that does not follow the window: an image and its smaller levels, built once.

Level l is level l - 1 smoothed by [1 4 6 4 1] / 16 along either axis, every second pixel of it. The smoothing has a variance
of one pixel of the level before, so that level l has had V_l = (4^l - 1) / 3 in all, in pixels of the image, and a window of
variance sigma^2 is read from it by the Gaussian that is missing, exactly:

    sigma_l^2 = (sigma^2 - V_l) / 4^l pixels of the level          mu_l = mu / 2^l          delta_l = delta / 2^l

A window takes the highest level at which sigma_l is at least LEAST_SIGMA (level 1: LEAST_SIGMA_1). What is left of a
difference to the exact read is the shape: binomials for a Gaussian, and its samples on a coarser grid. At the image's edge
every weight of a pixel that does not exist is missing from the exact read's sum; so it is here, since each level goes as
far as the image's weight does and carries along how much of it each pixel has, as one more channel, by which patches are
divided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdraw import checks
from fastdraw.boxes import places, windows_of
from fastdraw.ops.contract import patch_dtype
from fastdraw.ops.read import read
from fastdraw.reference import param_limits, stride_unit

#: Of the Gaussian that reads a level, in the level's pixels. From here on the error bound below holds: several levels'
#: binomials are together nearer to a Gaussian than one is.
LEAST_SIGMA_1, LEAST_SIGMA = 2.0, 1.75
#: Windows of which a sample stands further outside of the image, in its sigmas, are read exactly: there the exact read's
#: weights are all tail, of which a level knows less.
OUTSIDE = 2.0
#: Levels are made as long as the smaller side is at least this.
LEAST_SIDE = 8


class Pyramid:
    """An image and its smaller levels, from which wide windows are read without going through all of their pixels.

        pyramid = fastdraw.Pyramid(image)             # [B, C, H, W]
        patch = pyramid.read(params, 12)              # as fastdraw.read(image, params, 12)
        patch = pyramid.crop(boxes, 12)               # as fastdraw.crop(image, boxes, 12)

    image  [B, C, H, W], floating-point or uint8. Levels are float32, float64 of float64; all together take a third of the
           memory of such an image with one channel more.

    Patches differ from the exact ones by at most 0.0031 of the image's largest magnitude, whatever the image, by 0.0014 where
    all samples stand inside of it, and on smooth images by less than 1e-4 (held by tests/ops/test_pyramid.py). Windows whose
    sigma is below 4.1 pixels, and those with samples more than two sigmas outside, are read from the image itself, exactly.

    Which level a window is read from depends on its params, and is asked for on the host: reading waits for a GPU, and
    torch.compile cannot trace it. Differentiable once in image and params. Building is part of the image's graph: to go
    backward more than once, keep it (retain_graph=True), or build anew. What is written into the image later does not reach
    the levels.

    Raises TypeError or ValueError, naming the argument, as `fastdraw.read` and `fastdraw.crop` do.
    """

    def __init__(self, image: Tensor) -> None:
        checks.check_image(image)
        checks.check_pair("image", tuple(image.shape[2:]))
        #: Level 0 is the image. From level 1 on the last channel is the pixels' weight, a product of one for each axis.
        self.levels = [image]
        dtype = torch.promote_types(patch_dtype(image.dtype), torch.float32)
        pixels = image
        weight_y, weight_x = (
            image.new_ones((1, 1, *shape), dtype=dtype) for shape in ((image.shape[2], 1), (1, image.shape[3]))
        )
        # Level 0 begins at pixel 0; each one above at -1, as its first pixel with any weight does.
        first = 0
        while min(pixels.shape[2:]) >= 2 * LEAST_SIDE:
            pixels = _halved(_halved(pixels, 2, first, dtype), 3, first, dtype)
            weight_y, weight_x = _halved(weight_y, 2, first, dtype), _halved(weight_x, 3, first, dtype)
            first = -1
            weight = (weight_y * weight_x).expand(len(image), -1, -1, -1)
            self.levels.append(torch.cat([pixels, weight], 1))
        # sigma^2 from which on each level is taken: sigma^2 - V_l >= LEAST_SIGMA^2 4^l.
        least = [(LEAST_SIGMA_1 if i == 1 else LEAST_SIGMA) ** 2 * 4**i + _variance(i) for i in range(1, len(self.levels))]
        self._least = torch.tensor(least, dtype=torch.float64, device=image.device)

    def read(self, params: Tensor, size: int | tuple[int, int]) -> Tensor:
        """`fastdraw.read` of the image: params [B, 5], [B, K, 5], or of 7 numbers -> [B, C, N, N], or [B, K, C, N, N]."""
        sides, image = checks.check_sides("size", size), self.levels[0]
        checks.check_windows(params, image.shape[0])
        checks.check_same("device", "image", image, "params", params)
        checks.check_readable("params", params)
        levels = self._level_of(params.detach(), sides)
        number = int(levels.max()) if levels.numel() else 0
        if not levels.numel() or bool((levels == number).all()):
            return self._of_level(number, params, sides, self.levels[number])
        several = params if params.dim() == 3 else params[:, None]
        index = torch.arange(image.shape[0], device=params.device).repeat_interleave(several.shape[1])
        patch = self._read(several.flatten(0, 1), levels.flatten(), index, sides)
        return patch.view(*params.shape[:-1], *patch.shape[1:])

    def crop(
        self,
        boxes: Tensor,
        size: int | tuple[int, int],
        index: Tensor | None = None,
        *,
        sigma: float = 0.5,
        align_corners: bool = False,
        scale: float = 1.0,
    ) -> Tensor:
        """`fastdraw.crop` of the image."""
        sides, params = windows_of(self.levels[0], boxes, size, index, sigma, align_corners, scale)
        if index is None:
            return self.read(params, sides)
        checks.check_readable("params", params)
        return self._read(params, self._level_of(params.detach(), sides), index.long(), sides)

    def _read(self, params: Tensor, levels: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
        """Windows [n, 5 or 7] of images index [n] -> patches [n, C, N_y, N_x], each window by its level [n]."""
        order = torch.argsort(levels, stable=True)
        shares = order.split(torch.bincount(levels, minlength=len(self.levels)).tolist())
        chosen = [(number, share) for number, share in enumerate(shares) if len(share)] or [(0, order)]
        patches = [self._read_level(number, params[share], index[share], size) for number, share in chosen]
        return torch.cat(patches)[torch.argsort(order)]

    def _read_level(self, number: int, params: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
        """Windows [n, 5 or 7] of images index [n] -> patches [n, C, N_y, N_x]."""
        level = self.levels[number]
        of = places(index, level.shape[0])
        runs = zip(level.split(of.images), of.laid_out(params), strict=True)
        patches = [self._of_level(number, windows, size, images).flatten(0, 1) for images, windows in runs]
        return torch.cat(patches)[of.of_box]

    def _of_level(self, number: int, params: Tensor, size: tuple[int, int], level: Tensor) -> Tensor:
        """`read` of some images of a level, by windows of the image."""
        if not number:
            return read(level, params, size)
        params = self._at_level(number, params, size)
        patch = read(level, params, size)
        # gamma stands in the patch and in its weight.
        limit = param_limits(params.shape[-1])[-1]
        gamma = params[..., -1].clamp(-limit, limit).exp()[..., None, None, None]
        return (patch[..., :-1, :, :] / patch[..., -1:, :, :] * gamma).to(patch_dtype(self.levels[0].dtype))

    def _level_of(self, params: Tensor, size: tuple[int, int]) -> Tensor:
        """Of params [..., 5 or 7], on their device: the highest level at which what sigma says is still done.

        In few calls: reading a window takes as long as some thirty of them.
        """
        (height, width), (rows, columns) = self.levels[0].shape[2:], size
        g_x, g_y, log_sigma2, log_delta, _ = _parts(params.double())
        variance, delta = log_sigma2.exp(), log_delta.exp() * stride_unit(size, (height, width))
        level = (variance.amin(-1, keepdim=True) >= self._least).sum(-1)
        sigma = variance.sqrt()
        # NaN, which compares false, goes to the image, where it shows.
        for axis, (g, count, length) in enumerate(((g_x, columns, width), (g_y, rows, height))):
            axis = min(axis, delta.shape[-1] - 1)
            # How far outside of the image the last sample stands: its middle is (length + 1) / 2 g from the image's.
            last = g[..., 0].abs() * ((length + 1) / 2) + delta[..., axis] * ((count - 1) / 2)
            level = level * (last - OUTSIDE * sigma[..., axis] <= (length - 1) / 2)
        return level

    def _at_level(self, number: int, params: Tensor, size: Sequence[int]) -> Tensor:
        """The same windows in the level's own numbers."""
        factor = 2.0**number
        (height, width), (rows, columns) = self.levels[0].shape[2:], self.levels[number].shape[2:]
        g_x, g_y, log_sigma2, log_delta, log_gamma = _parts(params if params.dtype == torch.float64 else params.float())
        places = []
        for g, length, count in ((g_x, width, columns), (g_y, height, rows)):
            # Pixel j of the level stands at j - 1 of its grid, which is 2^l (j - 1) of the image: so what stands at
            # (length + 1) / 2 (g + 1) - 1 in the image stands at that by 2^l, and 1, in the level.
            middle = ((length - 1) / 2 / factor + 2) * (2 / (count + 1)) - 1
            places.append(g * ((length + 1) / factor / (count + 1)) + middle)
        log_sigma2 = ((log_sigma2.exp() - _variance(number)) / factor**2).log()
        before, after = stride_unit(size, (height, width)), stride_unit(size, (rows, columns))
        return torch.cat([*places, log_sigma2, log_delta + math.log(before / factor / after), log_gamma], -1)


def _parts(params: Tensor) -> tuple[Tensor, ...]:
    """g~x, g~y, log sigma^2, log delta~ and log gamma, each [..., 1], or [..., 2] where x and y have their own; the logarithms
    within their limits."""
    axes, limits = (params.shape[-1] - 3) // 2, param_limits(params.shape[-1])
    g_x, g_y, *logarithms = params.split([1, 1, axes, axes, 1], -1)
    return g_x, g_y, *(part.clamp(-limits[i], limits[i]) for part, i in zip(logarithms, (2, 2 + axes, -1), strict=True))


def _variance(number: int) -> float:
    """What level `number` has been smoothed by, in pixels of the image."""
    return (4**number - 1) / 3


def _halved(level: Tensor, dim: int, first: int, dtype: torch.dtype) -> Tensor:
    """Smoothed along an axis, every second pixel: those that stand at -2, 0, 2, ... in the grid whose pixels begin at `first`,
    as far as any weight reaches."""
    length = level.shape[dim]
    last = first + length - 1
    shape = list(level.shape)
    # Pixel j of the new grid takes 2 j - 2 to 2 j + 2 of the old one; j = -1 is the first.
    shape[dim] = (last + 2) // 2 + 2
    out = level.new_zeros(shape, dtype=dtype)
    for tap, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        begin, end = -((tap - first) // 2), (last - tap) // 2
        old = [slice(None)] * dim + [slice(2 * begin + tap - first, 2 * end + tap - first + 1, 2)]
        out.narrow(dim, begin + 1, end - begin + 1).add_(level[tuple(old)], alpha=weight / 16)
    return out
