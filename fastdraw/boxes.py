"""Boxes in pixels: crops that are differentiable in the image and in the place, their transpose, and the windows behind them.

A box (x1, y1, x2, y2) is a window of seven numbers (fastdraw/ops/read.py) whose sigma follows its stride: N samples along an
axis stand in the middles of N equal parts of the box, and each is a Gaussian average about as wide as its part. There is one
set of kernels; what follows here is the change of coordinates, by autograd.

    stride = (x2 - x1) / N          mu_i = x1 + (i + 1/2) stride - 1/2        sigma = max(sigma stride, 1/2 pixel)

Pixel i covers [i, i + 1), and its centre is mu = i. With align_corners coordinates count from the centres instead, and the
outer samples stand on the box's sides: stride = (x2 - x1) / (N - 1), mu_i = x1 + i stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw import checks
from fastdraw.ops.contract import wide_dtype
from fastdraw.ops.read import read
from fastdraw.ops.write import write
from fastdraw.reference import param_limits, stride_unit

#: Samples of a box without size are so many pixels apart, since a window's stride is told by its logarithm.
LEAST_STRIDE = 1e-6
#: Pixels; a Gaussian over pixels that is narrower than this no longer interpolates between them.
LEAST_SIGMA = 0.5


def crop(
    image: Tensor,
    boxes: Tensor,
    size: int | tuple[int, int],
    index: Tensor | None = None,
    *,
    sigma: float = 0.5,
    align_corners: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """What stands in boxes of an image, resampled to one size without aliasing: differentiable in the image and in the boxes.

    image   [B, C, H, W], float32, float64, float16, bfloat16 or uint8, with any strides.
    boxes   [B, K, 4], K boxes of each image; [B, 4], one of each; or [N, 4] with `index`. (x1, y1, x2, y2) in pixels and
            fractions of them, x1 <= x2 and y1 <= y2; of any floating dtype.
    size    N >= 1, samples along each side, or (N_y, N_x).
    index   [N], int64 or int32: the image that each box is of, from 0 to B - 1, in any order. It is read on the host, which
            waits for a GPU and which torch.compile cannot trace; [B, K, 4] is not.
    sigma   of each sample's Gaussian, in strides, along either axis, and never less than half a pixel. 0.5: next to nothing is
            left of what the samples cannot tell (0.7 % of a wave that repeats from sample to sample). 0.29: the variance of an
            area average, sharper, and with more alias (19 % of that wave).
    align_corners  False: pixel i covers [i, i + 1), so that (0, 0, W, H) is the whole image, and samples stand in the middles
            of N equal parts of the box, as torchvision.ops.roi_align(aligned=True) and grid_sample(align_corners=False) have
            them. True: coordinates count from the pixels' centres, so that (0, 0, W - 1, H - 1) is the whole image, and the
            outer samples stand on the box's sides, as kornia's crop_and_resize and grid_sample(align_corners=True) have them.
    scale   the patch is multiplied by it; above 0. 1 / 255 makes patches in [0, 1] of uint8 images.

    Gives patches [B, K, C, N_y, N_x], [B, C, N_y, N_x] or [N, C, N_y, N_x] in the image's dtype, float32 of uint8. Each sample
    is an average of pixels that exist: what stands past the edge, a box that lies outside too, reads the border nearest to it.
    A box of no size reads one place, and has no gradient to its size. Differentiable once in image and boxes. Under autocast
    it runs in float32.

    Raises TypeError or ValueError, naming the argument, for other shapes and dtypes, two devices, and an index outside of the
    images; where values are looked at (on the CPU, see FASTDRAW_CHECK_VALUES) for boxes that are not finite or have a negative
    size. Where they are not, NaN gives NaN, and a negative size counts as none.
    """
    sides, params = windows_of(image, boxes, size, index, sigma, align_corners, scale)
    if index is None:
        return read(image, params, sides)
    of = places(index, image.shape[0])
    runs = zip(image.split(of.images), of.laid_out(params), strict=True)
    return torch.cat([read(images, windows, sides).flatten(0, 1) for images, windows in runs])[of.of_box]


def paste(
    patch: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    index: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sigma: float = 0.5,
    align_corners: bool = False,
) -> Tensor:
    """The transpose of `crop`: patches laid into boxes of an empty image, and summed where boxes overlap.

    patch       [B, K, C, N_y, N_x] with boxes [B, K, 4], [B, C, N_y, N_x] with [B, 4], or [N, C, N_y, N_x] with [N, 4] and
                `index`; float32, float64, float16 or bfloat16.
    boxes, index, sigma, align_corners    as for `crop`.
    image_size  (H, W) in pixels.
    batch_size  B, with `index` alone, and needed there.

    Gives the image [B, C, H, W], in the patch's dtype: sum(paste(patch, ...) * image) is sum(patch * crop(image, ...)): a
    sample's value is shared out among the pixels that it is an average of. To lay values down instead, divide by what a
    patch of ones gives. Differentiable once in patch and boxes.

    Raises TypeError or ValueError, naming the argument, as `crop` does.
    """
    several = isinstance(boxes, Tensor) and boxes.dim() == 3
    checks.check_tensor("patch", patch, *(("B", "K") if several else ("B",)), "C", "N_y", "N_x")
    sides = checks.check_pair("patch", tuple(patch.shape[-2:]))
    pixels = checks.check_pair("image_size", image_size)
    if index is None:
        if batch_size is not None:
            raise checks.expected("batch_size", "none without index, since each image has its patches", batch_size)
        _check_boxes_of(boxes, patch.shape[0], None)
    else:
        _check_boxes_of(boxes, checks.check_size("batch_size", batch_size), index)
    if boxes.shape[:-1] != patch.shape[:-3]:
        raise checks.expected("boxes", f"shape {[*patch.shape[:-3], 4]}, a box for each patch", boxes)
    checks.check_same("device", "patch", patch, "boxes", boxes)
    params = _params(_widened(boxes, patch), sides, pixels, sigma, align_corners)
    if index is None:
        return write(patch, params, pixels)
    assert batch_size is not None
    of = places(index, batch_size)
    runs = zip(of.laid_out(patch), of.laid_out(params), strict=True)
    return torch.cat([write(patches, windows, pixels) for patches, windows in runs])


def params_from_boxes(
    boxes: Tensor,
    size: int | tuple[int, int],
    image_size: tuple[int, int],
    *,
    sigma: float = 0.5,
    align_corners: bool = False,
) -> Tensor:
    """The windows that read boxes: [..., 4], (x1, y1, x2, y2) in pixels -> params [..., 7] for `fastdraw.read`, float32
    (float64 of float64 boxes). size, sigma, align_corners as for `fastdraw.crop`; image_size (H, W) in pixels. Differentiable.

    Raises TypeError or ValueError, naming the argument, as `fastdraw.crop` does.
    """
    pixels, sides = checks.check_pair("image_size", image_size), checks.check_sides("size", size)
    checks.check_boxes(boxes)
    return _params(boxes if boxes.dtype == torch.float64 else boxes.float(), sides, pixels, sigma, align_corners)


def boxes_from_params(
    params: Tensor, size: int | tuple[int, int], image_size: tuple[int, int], *, align_corners: bool = False
) -> Tensor:
    """The boxes that windows of N samples a side, or (N_y, N_x), read: params [..., 5] or [..., 7], as `fastdraw.read` takes
    them -> boxes [..., 4], (x1, y1, x2, y2) in pixels, float32 (float64 of float64 params). What sigma and gamma say is not
    in them.
    image_size: (H, W) in pixels; align_corners as for `fastdraw.crop`. Differentiable.

    Raises TypeError or ValueError, naming the argument, for integers, and other shapes.
    """
    (height, width), (rows, columns) = checks.check_pair("image_size", image_size), checks.check_sides("size", size)
    if not isinstance(params, Tensor) or not params.is_floating_point():
        checks.check_params(params)
    if params.dim() == 0 or params.shape[-1] not in (5, 7):
        raise checks.expected("params", "shape [..., 5] or [..., 7]", params)
    params = params if params.dtype == torch.float64 else params.float()
    limits = param_limits(params.shape[-1])
    g_x, g_y, *shapes, _ = (column.clamp(-limit, limit) for column, limit in zip(params.unbind(-1), limits, strict=True))
    unit, shift = stride_unit((rows, columns), (height, width)) or 1.0, 0.0 if align_corners else 0.5
    log_delta = shapes[len(shapes) // 2 :]
    sides = []
    for place, log, count, length in ((g_x, log_delta[0], columns, width), (g_y, log_delta[-1], rows, height)):
        middle = (length + 1) / 2 * (place + 1) - 1 + shift
        half = log.exp() * (unit / 2 * _parts(count, align_corners))
        sides.append((middle - half, middle + half))
    return torch.stack([low for low, _ in sides] + [high for _, high in sides], -1)


def concentric_boxes(boxes: Tensor, scales: Sequence[float]) -> Tensor:
    """Boxes around the centres of others, so many times as wide and high: [..., 4] -> [..., S, 4], for a glimpse that is fine
    in the middle and coarse around it. One call reads all of them:

        around = fastdraw.concentric_boxes(boxes, (1, 3, 9))      # boxes [B, 4]
        patches = fastdraw.crop(image, around, 12)                # [B, 3, C, 12, 12]

    boxes   as `crop` takes them, centres of pixels or edges alike. Differentiable.
    scales  S numbers, 0 or more.

    Raises TypeError or ValueError, naming the argument, for other shapes and dtypes, and negative or infinite scales.
    """
    checks.check_boxes(boxes)
    if not isinstance(scales, (tuple, list)) or not all(_is_number(scale) for scale in scales):
        raise checks.expected("scales", "a tuple of numbers, 0 or more", scales)
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    middle, half = boxes[..., :2] / 2 + boxes[..., 2:] / 2, boxes[..., 2:] / 2 - boxes[..., :2] / 2
    around = [torch.cat([middle - scale * half, middle + scale * half], -1) for scale in scales]
    return torch.stack(around, -2) if around else boxes.new_empty(*boxes.shape[:-1], 0, 4)


def _is_number(value: Any) -> bool:
    """Finite, and 0 or more."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _parts(count: int, align_corners: bool) -> int:
    """How many strides a box is wide."""
    return max(count - 1, 1) if align_corners else count


def _widened(boxes: Tensor, like: Tensor) -> Tensor:
    return boxes.to(torch.promote_types(wide_dtype(boxes.dtype), wide_dtype(like.dtype)))


def _params(
    boxes: Tensor,
    size: Sequence[int],
    image_size: Sequence[int],
    sigma: float,
    align_corners: bool,
    log_gamma: float = 0.0,
) -> Tensor:
    if not _is_number(sigma):
        raise checks.expected("sigma", "a number of strides, 0 or more", sigma)
    log_unit = math.log(stride_unit(size, image_size) or 1.0)
    # No stride is as long as e^300, and none as short as e^-300.
    log_ratio = math.log(sigma) if sigma > 0 else -300.0

    def axes(low: Tensor, high: Tensor, count: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """(g~, log sigma^2, log delta~) of axes with as many samples and pixels. In few calls: where windows are few their
        number, forward and backward, is what takes the time."""
        parts = _parts(count, align_corners)
        log_side = (high - low).clamp(min=LEAST_STRIDE * parts).log()
        place = (low + high) * (1 / (length + 1)) + ((2.0 if align_corners else 1.0) / (length + 1) - 1)
        log_sigma2 = (log_side * 2 + 2 * (log_ratio - math.log(parts))).clamp(min=2 * math.log(LEAST_SIGMA))
        return place, log_sigma2, log_side - (math.log(parts) + log_unit)

    # Of x and y.
    low, high = boxes.unflatten(-1, (2, 2)).unbind(-2)
    sides = (size[1], image_size[1]), (size[0], image_size[0])
    if sides[0] == sides[1]:
        columns = list(axes(low, high, *sides[0]))
    else:
        both = [axes(low[..., i : i + 1], high[..., i : i + 1], *sides[i]) for i in (0, 1)]
        columns = [column for pair in zip(*both, strict=True) for column in pair]
    return torch.cat([*columns, boxes.new_full((*boxes.shape[:-1], 1), log_gamma)], -1)


def windows_of(
    image: Tensor,
    boxes: Tensor,
    size: int | tuple[int, int],
    index: Tensor | None,
    sigma: float,
    align_corners: bool,
    scale: float,
) -> tuple[tuple[int, int], Tensor]:
    """What `crop` reads: (N_y, N_x), and the windows of its boxes, after everything was checked."""
    checks.check_image(image)
    checks.check_pair("image", tuple(image.shape[2:]))
    _check_boxes_of(boxes, image.shape[0], index)
    checks.check_same("device", "image", image, "boxes", boxes)
    if not _is_number(scale) or scale == 0:
        raise checks.expected("scale", "a number above 0", scale)
    sides = checks.check_sides("size", size)
    return sides, _params(_widened(boxes, image), sides, image.shape[2:], sigma, align_corners, math.log(scale))


def _check_boxes_of(boxes: Tensor, batch: int, index: Tensor | None) -> None:
    if index is not None:
        checks.check_index(index, batch)
        checks.check_tensor("boxes", boxes, len(index), 4)
        checks.check_same("device", "boxes", boxes, "index", index)
    elif isinstance(boxes, Tensor) and boxes.dim() == 2 and boxes.shape[-1] == 4 and boxes.shape[0] != batch:
        raise checks.expected("boxes", f"shape [{batch}, 4] or [{batch}, K, 4], or index, which says each box's image", boxes)
    else:
        several = isinstance(boxes, Tensor) and boxes.dim() == 3
        checks.check_tensor("boxes", boxes, batch, *(("K",) if several else ()), 4)
    checks.check_boxes(boxes)


class Places(NamedTuple):
    """Boxes of any images as runs of images that follow each other, each image of a run with as many slots."""

    images: list[int]  # Of each run,
    each: list[int]  # and the slots of each of its images.
    of_box: Tensor  # [N]: its slot among those of all runs.

    def slots(self) -> list[int]:
        """Of each run."""
        return [n * k for n, k in zip(self.images, self.each, strict=True)]

    def laid_out(self, boxes: Tensor) -> list[Tensor]:
        """What N boxes have, [N, ...] -> [images, each, ...] of every run; zeros in slots that no box takes."""
        slots = self.slots()
        laid = boxes.new_zeros(sum(slots), *boxes.shape[1:]).index_put((self.of_box,), boxes)
        runs = zip(laid.split(slots), self.images, self.each, strict=True)
        return [run.view(n, k, *boxes.shape[1:]) for run, n, k in runs]


def places(index: Tensor, batch: int) -> Places:
    """At most half of the slots of a run stay empty."""
    index = index.long()
    counts = torch.bincount(index, minlength=batch)
    images, each, taken = [0], [0], 0
    for count in counts.tolist():
        if (images[-1] + 1) * max(each[-1], count) > 2 * (taken + count):
            images.append(0)
            each.append(0)
            taken = 0
        images[-1], each[-1], taken = images[-1] + 1, max(each[-1], count), taken + count
    starts: list[int] = []
    total = 0
    for n, k in zip(images, each, strict=True):
        starts += range(total, total + n * k, k) if k else [total] * n
        total += n * k
    order = torch.argsort(index, stable=True)
    chosen = index[order]
    rank = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[chosen]
    of_box = torch.empty_like(index).index_put_((order,), torch.tensor(starts, device=index.device)[chosen] + rank)
    return Places(images, each, of_box)
