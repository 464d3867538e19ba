"""Crops by boxes in pixels, their transpose, and the windows behind them."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

import fastdraw
from fastdraw import env
from fastdraw.testing import prove

EXAMPLES = 3 if env.triton_interpreted() or "FASTDRAW_EMULATE" in os.environ else 25


def by_hand(image: Tensor, boxes: Tensor, size: tuple[int, int], sigma: float = 0.5, align_corners: bool = False) -> Tensor:
    """The definition: normalised Gaussians over pixels, one box [..., 4] of an image [C, H, W] at a time."""
    height, width = image.shape[1:]

    def rows(low: Tensor, high: Tensor, count: int, length: int) -> Tensor:
        parts = max(count - 1, 1) if align_corners else count
        stride = (high - low) / parts
        i = torch.arange(count, dtype=boxes.dtype)
        mu = low + (i + 0.5) * stride - 0.5
        if align_corners:
            mu = low + i * stride if count > 1 else (low + high) / 2 + 0 * i
        width = (sigma * stride).clamp(min=0.5)
        return torch.softmax(-((torch.arange(length, dtype=boxes.dtype) - mu[:, None]) ** 2) / (2 * width**2), -1)

    y = rows(boxes[1], boxes[3], size[0], height)
    x = rows(boxes[0], boxes[2], size[1], width)
    return y @ image.to(boxes.dtype) @ x.mT


def plainly(image: Tensor, boxes: Tensor, size: tuple[int, int], **how) -> Tensor:
    """by_hand of every box [B, K, 4]."""
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    patches = [torch.stack([by_hand(one, box, size, **how) for box in own]) for one, own in zip(image, boxes, strict=True)]
    return torch.stack(patches).to(image.dtype)


def some_boxes(*shape: int, height: int = 40, width: int = 50) -> Tensor:
    """Inside the image and past its edges, of half a pixel to twice the image."""
    centre = torch.rand(*shape, 2, dtype=torch.float64) * torch.tensor([width, height]) * 1.2
    half = torch.exp(torch.rand(*shape, 2, dtype=torch.float64) * 4 - 0.7)
    return torch.cat([centre - half, centre + half], -1)


@pytest.mark.levels
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("shape", "size"), [((2, 2, 40, 50), (4, 7)), ((2, 1, 90, 80), (1, 12))])
def test_what_a_crop_is(backend: str, device: str, shape, size, align_corners: bool) -> None:
    inputs = torch.randn(shape, dtype=torch.float64), some_boxes(2, 3)
    how = {"align_corners": align_corners, "sigma": 0.4}

    def crop(image: Tensor, boxes: Tensor) -> Tensor:
        return fastdraw.crop(image, boxes, size, **how)

    for dtype in (torch.float32, torch.float64):
        prove(crop, lambda image, boxes: plainly(image, boxes, size, **how), inputs, dtype, params=1, device=device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(backend: str, device: str, dtype: torch.dtype) -> None:
    """Boxes keep the digits that they came with."""
    image, boxes = torch.rand(2, 2, 70, 80).to(dtype), some_boxes(2, 3, height=70, width=80).float()
    patch = fastdraw.crop(image.to(device), boxes.to(device), 5)
    assert patch.dtype == dtype
    torch.testing.assert_close(patch.cpu(), plainly(image, boxes.double(), (5, 5)))


@pytest.mark.levels
@pytest.mark.parametrize("align_corners", [False, True])
def test_paste_is_the_transpose(backend: str, device: str, align_corners: bool) -> None:
    """<paste(P), I> = <P, crop(I)>, and so are the gradients to the boxes."""
    image, boxes = torch.randn(2, 2, 40, 50, dtype=torch.float64, device=device), some_boxes(2, 3).to(device).requires_grad_()
    patch = torch.randn(2, 3, 2, 4, 7, dtype=torch.float64, device=device)
    drawn = (fastdraw.paste(patch, boxes, (40, 50), align_corners=align_corners) * image).sum()
    read = (fastdraw.crop(image, boxes, (4, 7), align_corners=align_corners) * patch).sum()
    torch.testing.assert_close(drawn, read)
    torch.testing.assert_close(torch.autograd.grad(drawn, boxes), torch.autograd.grad(read, boxes))


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_of_the_specification(align_corners: bool) -> None:
    boxes = torch.tensor([[[1.0, 2.0, 9.5, 7.25], [-3.0, 1.0, 2.0, 15.0]]], dtype=torch.float64, requires_grad=True)
    image = torch.randn(1, 2, 8, 9, dtype=torch.float64, requires_grad=True)
    patch = torch.randn(1, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    for name in ("reference", "aten"):
        with fastdraw.backend(name):
            crop = torch.autograd.gradcheck(
                lambda i, b: fastdraw.crop(i, b, (2, 3), align_corners=align_corners), (image, boxes)
            )
            paste = torch.autograd.gradcheck(
                lambda p, b: fastdraw.paste(p, b, (8, 9), align_corners=align_corners), (patch, boxes)
            )
            assert crop
            assert paste


@pytest.mark.parametrize("align_corners", [False, True])
def test_samples_stand_where_grid_sample_has_them(backend: str, align_corners: bool) -> None:
    """Of a plane every symmetric average is the value in its middle, so that places show and widths do not."""
    height, width, size = 64, 96, (5, 8)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([x + 2.0 * y, 3.0 * y - x])[None]
    boxes = torch.tensor([[20.0, 12.0, 76.5, 50.25]])
    scale = torch.tensor([width - 1, height - 1] if align_corners else [width, height])
    low, high = (2 * side / scale - 1 for side in boxes.split(2, 1))
    half, middle = (high - low)[0] / 2, (low + high)[0] / 2
    theta = torch.stack(
        [torch.stack([half[0], torch.tensor(0.0), middle[0]]), torch.stack([torch.tensor(0.0), half[1], middle[1]])]
    )
    grid = affine_grid(theta[None], [1, 2, *size], align_corners)
    expected = grid_sample(image, grid, align_corners=align_corners)
    found = fastdraw.crop(image, boxes, size, sigma=0.2, align_corners=align_corners)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_whole_parts_of_a_smooth_image(backend: str) -> None:
    """roi_align's bins are averages of areas, whose variance sigma = 0.29 has."""
    y, x = torch.meshgrid(torch.arange(96) / 96, torch.arange(96) / 96, indexing="ij")
    image = (torch.sin(5 * x + 1) * torch.cos(4 * y))[None, None]
    box = torch.tensor([[16.0, 24.0, 80.0, 88.0]])
    area = avg_pool2d(image[:, :, 24:88, 16:80], 8)
    torch.testing.assert_close(fastdraw.crop(image, box, 8, sigma=0.289), area, rtol=0, atol=4e-4)
    # A place off by half a pixel would show.
    assert (fastdraw.crop(image, box + 0.5, 8, sigma=0.289) - area).abs().max() > 1e-2


def test_stripes_leave_no_alias(backend: str) -> None:
    """One stripe from sample to sample, of which point samples take anything between all and nothing."""
    stripes = torch.cos(torch.arange(256) * (2 * torch.pi / 16)).expand(1, 1, 256, 256).contiguous()
    box = torch.tensor([[0.0, 0.0, 256.0, 256.0]])
    inner = fastdraw.crop(stripes, box, 16)[..., 2:-2]
    assert inner.abs().max() < 0.0075
    assert (
        grid_sample(stripes, affine_grid(torch.eye(2, 3)[None], [1, 1, 16, 16], False), align_corners=False).abs().max() > 0.1
    )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [1, 6, (3, 9), (1, 4)])
def test_there_and_back(size, align_corners: bool) -> None:
    boxes = some_boxes(2, 5)
    params = fastdraw.params_from_boxes(boxes, size, (40, 50), align_corners=align_corners)
    back = fastdraw.boxes_from_params(params, size, (40, 50), align_corners=align_corners)
    torch.testing.assert_close(back, boxes)
    assert params.shape == (2, 5, 7)


def test_the_box_of_the_papers_window() -> None:
    """Zeros span the image, centre to centre; five numbers and seven say the same box."""
    corners = fastdraw.boxes_from_params(torch.zeros(5), 4, (9, 9), align_corners=True)
    edges = fastdraw.boxes_from_params(torch.zeros(7), 9, (9, 9))
    assert corners.tolist() == pytest.approx([0, 0, 8, 8])
    assert edges.tolist() == pytest.approx([0, 0, 9, 9])


@pytest.mark.parametrize("index", [[2, 0, 0, 2, 2], [0, 1, 2, 3, 0], [3] * 5, [], [1]])
def test_boxes_of_any_images(backend: str, device: str, index: list[int]) -> None:
    """What each gives on its own, whatever their order and how they are shared out."""
    index, boxes = torch.tensor(index, dtype=torch.int64), some_boxes(len(index)).float()
    image, own = (torch.randn(4, 2, 40, 50) for _ in range(2))
    given = [t.to(device).requires_grad_() for t in (image, boxes)]
    patch = fastdraw.crop(*given, (3, 4), index.to(device))
    assert patch.shape == (len(index), 2, 3, 4)
    single = [t.clone().to(device).requires_grad_() for t in (image, boxes)]
    each = [fastdraw.crop(single[0][b : b + 1], single[1][i : i + 1], (3, 4)) for i, b in enumerate(index.tolist())]
    expected = torch.cat(each) if each else patch.detach() * single[0].sum()
    torch.testing.assert_close(patch, expected)
    if not len(index):
        return
    weight = torch.randn_like(patch)
    found, wanted = (torch.autograd.grad((p * weight).sum(), of) for p, of in ((patch, given), (expected, single)))
    torch.testing.assert_close(found, wanted)
    drawn = fastdraw.paste(weight, given[1], (40, 50), index.to(device), batch_size=4)
    torch.testing.assert_close(
        (drawn * own.to(device)).sum(),
        (fastdraw.crop(own.to(device), *given[1:], (3, 4), index.to(device)) * weight).sum(),
        rtol=1e-4,
        atol=1e-4,
    )
    assert drawn.shape == (4, 2, 40, 50)


def test_many_boxes_of_one_image_do_not_pay_for_the_others() -> None:
    from fastdraw.boxes import places

    index = torch.tensor([5] * 100 + [7] + [0, 1] * 2)
    of = places(index, 64)
    assert sum(of.images) == 64
    assert sum(of.slots()) <= 2 * len(index)
    assert len(set(of.of_box.tolist())) == len(index)


@pytest.mark.parametrize("scale", [1 / 255, 3.0])
def test_scale(backend: str, scale: float) -> None:
    image, boxes = torch.rand(2, 3, 30, 40), some_boxes(2, 2, height=30, width=40).float()
    torch.testing.assert_close(fastdraw.crop(image, boxes, 4, scale=scale), scale * fastdraw.crop(image, boxes, 4))


def test_concentric_boxes(backend: str) -> None:
    """Foveated: one call, whose patches are those of every scale on its own; with a gradient to the one box."""
    image, boxes = torch.rand(2, 3, 60, 70), torch.tensor([[20.0, 30.0, 30.0, 34.0], [1.0, 2.0, 5.0, 8.0]], requires_grad=True)
    around = fastdraw.concentric_boxes(boxes, (1, 2.5, 0))
    assert around[0].tolist() == [[20, 30, 30, 34], [12.5, 27, 37.5, 37], [25, 32, 25, 32]]
    patches = fastdraw.crop(image, around, 6)
    assert patches.shape == (2, 3, 3, 6, 6)
    torch.testing.assert_close(patches[:, 1], fastdraw.crop(image, around[:, 1], 6))
    (grad,) = torch.autograd.grad(patches.square().sum(), boxes)
    assert grad.isfinite().all()
    assert fastdraw.concentric_boxes(boxes, ()).shape == (2, 0, 4)


IMAGE, PATCH, INDEX = torch.rand(2, 3, 20, 30), torch.rand(2, 3, 4, 4), torch.tensor([1, 0])
BOXES = torch.tensor([[2.0, 3.0, 9.0, 8.0]] * 2)
NAN, INF = float("nan"), float("inf")


def box(*sides: float) -> Tensor:
    return torch.tensor([[0.0, 0.0, 1.0, 1.0], list(sides)])


CROPS = [
    ((IMAGE, box(0, 0, NAN, 1), 4), ValueError, r"boxes: expected finite .* got \(0, 0, nan, 1\) at \[1\]"),
    ((IMAGE, box(0, -INF, 2, 1), 4), ValueError, r"boxes: expected finite .* got \(0, -inf, 2, 1\)"),
    ((IMAGE, box(5, 0, 2, 1), 4), ValueError, r"x1 <= x2 and y1 <= y2, got \(5, 0, 2, 1\) at \[1\]"),
    ((IMAGE, box(0, 5, 2, 1)[:, None], 4), ValueError, r"got \(0, 5, 2, 1\) at \[1, 0\]"),
    ((IMAGE, BOXES.long(), 4), TypeError, "boxes: expected a floating-point tensor, got a int64"),
    ((IMAGE, BOXES.tolist(), 4), TypeError, r"boxes: expected a tensor, got \[\["),
    ((IMAGE, BOXES[0], 4), ValueError, r"boxes: expected shape \[2, 4\], got .*\(4,\)"),
    ((IMAGE, BOXES[:, :3], 4), ValueError, r"boxes: expected shape \[2, 4\], got .*\(2, 3\)"),
    ((IMAGE, torch.rand(2, 5), 4), ValueError, r"boxes: expected shape \[2, 4\], got .*\(2, 5\)"),
    ((IMAGE, BOXES[:1], 4), ValueError, r"boxes: expected shape \[2, 4\] or \[2, K, 4\], or index, .*\(1, 4\)"),
    ((IMAGE, BOXES[:1, None], 4), ValueError, r"boxes: expected shape \[2, K, 4\], got .*\(1, 1, 4\)"),
    ((IMAGE, BOXES[:, None], 4, INDEX), ValueError, r"boxes: expected shape \[2, 4\], got .*\(2, 1, 4\)"),
    ((IMAGE, BOXES, 4, INDEX[:1]), ValueError, r"boxes: expected shape \[1, 4\], got .*\(2, 4\)"),
    ((IMAGE, BOXES, 4, INDEX + 1), ValueError, "index: expected image numbers from 0 to 1, got numbers from 1 to 2"),
    ((IMAGE, BOXES, 4, -INDEX), ValueError, "index: expected image numbers from 0 to 1, got numbers from -1 to 0"),
    ((IMAGE, BOXES, 4, INDEX.float()), TypeError, "index: expected an int64 or int32 tensor, got a float32"),
    ((IMAGE, BOXES, 4, [0, 1]), TypeError, r"index: expected a tensor, got \[0, 1\]"),
    ((IMAGE, BOXES, 4, INDEX.to("meta")), ValueError, "index: expected a tensor with values, which are read on the host"),
    ((IMAGE, BOXES, 4, INDEX[:, None]), ValueError, r"index: expected shape \[N\]"),
    ((IMAGE[0], BOXES, 4), ValueError, r"image: expected shape \[B, C, H, W\]"),
    ((IMAGE[..., :0], BOXES, 4), ValueError, "image: expected at least 1, got 0"),
    ((IMAGE.int(), BOXES, 4), TypeError, "image: expected a floating-point"),
    ((IMAGE, BOXES.to("meta"), 4), ValueError, "boxes: expected the device of image"),
    ((IMAGE, BOXES, 0), ValueError, "size: expected at least 1, got 0"),
]
OTHERS = [
    (lambda: fastdraw.crop(IMAGE, BOXES, 4, sigma=-1.0), ValueError, "sigma: expected a number of strides, .* got -1.0"),
    (lambda: fastdraw.crop(IMAGE, BOXES, 4, sigma=NAN), ValueError, "sigma: expected a number of strides, .* got nan"),
    (lambda: fastdraw.crop(IMAGE, BOXES, 4, scale=0), ValueError, "scale: expected a number above 0, got 0"),
    (lambda: fastdraw.concentric_boxes(BOXES, (1, -2)), ValueError, r"scales: expected a tuple of numbers, .* \(1, -2\)"),
    (lambda: fastdraw.concentric_boxes(BOXES, 3), ValueError, "scales: expected a tuple of numbers, 0 or more, got 3"),
    (lambda: fastdraw.paste(PATCH[0], BOXES, (20, 30)), ValueError, r"patch: expected shape \[B, C, N_y, N_x\]"),
    (lambda: fastdraw.paste(PATCH[..., :0], BOXES, (20, 30)), ValueError, "patch: expected at least 1, got 0"),
    (lambda: fastdraw.paste(PATCH, BOXES, (20, 30), INDEX), TypeError, "batch_size: expected a whole number, got None"),
    (lambda: fastdraw.paste(PATCH, BOXES, (20, 30), batch_size=2), ValueError, "batch_size: expected none without index"),
    (
        lambda: fastdraw.paste(PATCH[:1], BOXES, (20, 30), INDEX, batch_size=2),
        ValueError,
        r"boxes: expected shape \[1, 4\], a box for each patch",
    ),
    (lambda: fastdraw.paste(PATCH, BOXES, 20), ValueError, r"image_size: expected \(height, width\), got 20"),
    (lambda: fastdraw.params_from_boxes(BOXES[:, :2], 4, (20, 30)), ValueError, r"boxes: expected shape \[..., 4\]"),
    (
        lambda: fastdraw.boxes_from_params(torch.zeros(2, 3, 6), 4, (9, 9)),
        ValueError,
        r"params: expected shape \[..., 5\] or \[..., 7\]",
    ),
    (lambda: fastdraw.boxes_from_params(torch.zeros(5).int(), 4, (9, 9)), TypeError, "params: expected a floating-point"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), CROPS)
def test_mistakes(arguments, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastdraw.crop(*arguments)


def test_every_backend_refuses_them(backend: str) -> None:
    """And a pyramid, of what is no fault of the image."""
    pyramid = fastdraw.Pyramid(IMAGE)
    for (image, *arguments), error, message in CROPS:
        with pytest.raises(error, match=message):
            fastdraw.crop(image, *arguments)
        if image is IMAGE:
            with pytest.raises(error, match=message):
                pyramid.crop(*arguments)


@pytest.mark.parametrize(("call", "error", "message"), OTHERS)
def test_other_mistakes(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_without_looking_at_values(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN shows, and a negative size is none."""
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "0")
    assert fastdraw.crop(IMAGE, box(0, NAN, 3, 4), 4)[1].isnan().all()
    crossed, flat = (fastdraw.crop(IMAGE, box(*b), 4) for b in ((7, 3, 3, 9), (5, 3, 5, 9)))
    torch.testing.assert_close(crossed, flat)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    start=st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 2),
    extent=st.tuples(*[st.one_of(st.just(0.0), st.floats(0, 1e4, width=32), st.floats(0, 1e-3))] * 2),
    align_corners=st.booleans(),
)
def test_any_box(backend: str, device: str, sides, size, start, extent, align_corners: bool) -> None:
    """Of no size, far outside, far larger than the image: finite, and within what the pixels are."""
    low = torch.tensor([start], device=device)
    boxes = torch.cat([low, low + torch.tensor([extent], device=device)], 1).requires_grad_()
    image = torch.rand(1, 2, *sides, device=device).requires_grad_()
    patch = fastdraw.crop(image, boxes, size, align_corners=align_corners)
    grads = torch.autograd.grad(patch.square().sum(), (image, boxes))
    assert all(grad.isfinite().all() for grad in grads)
    least, most = (edge.detach() - 1e-4 * sign for edge, sign in ((image.min(), 1), (image.max(), -1)))
    assert least <= patch.min()
    assert patch.max() <= most


@pytest.mark.parametrize("far", [1e3, 1e6, 1e12])
def test_a_box_outside_reads_the_border(backend: str, far: float) -> None:
    image = torch.rand(1, 2, 20, 30)
    beside, below = (torch.tensor([b]) for b in ([far, 2.0, far + 4, 6.0], [3.0, far, 7.0, far + 4]))
    column, row = fastdraw.crop(image, beside, 4), fastdraw.crop(image, below, 4)
    torch.testing.assert_close(column, column[..., :1].expand_as(column))
    torch.testing.assert_close(column, fastdraw.crop(image[..., -1:], torch.tensor([[0.0, 2.0, 1.0, 6.0]]), 4))
    torch.testing.assert_close(row, fastdraw.crop(image[..., -1:, :], torch.tensor([[3.0, 0.0, 7.0, 1.0]]), 4))


def test_under_torchs_tools(backend: str) -> None:
    """One graph, and one call for all of vmap's."""
    image, boxes = torch.rand(2, 2, 30, 40), some_boxes(2, 3, height=30, width=40).float()
    expected = fastdraw.crop(image, boxes, (3, 4))
    for dynamic in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(lambda i, b: fastdraw.crop(i, b, (3, 4)), fullgraph=True, backend="eager", dynamic=dynamic)
        torch.testing.assert_close(compiled(image, boxes), expected)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(fastdraw.crop(image, boxes, (3, 4)), expected)
        assert fastdraw.crop(image.bfloat16(), boxes, (3, 4)).dtype == torch.float32
        assert fastdraw.Pyramid(image).crop(boxes, (3, 4)).isfinite().all()
    mapped = torch.vmap(lambda i, b: fastdraw.crop(i[None], b[None], (3, 4))[0])(image, boxes)
    torch.testing.assert_close(mapped, expected)
    jacobian = torch.func.jacrev(lambda b: fastdraw.crop(image, b, (3, 4)).sum((-3, -2, -1)))(boxes)
    assert jacobian.shape == (2, 3, 2, 3, 4)
    assert jacobian.isfinite().all()


def test_finding_an_object_by_descent(backend: str) -> None:
    """A blob in a corner of the box: its centre of mass in the crop says where to go, and the gradient goes there."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    image = torch.exp(-((x - 80) ** 2 + (y - 44) ** 2) / 50)[None, None]
    centre = torch.tensor([[60.0, 64.0]], requires_grad=True)
    optimizer = torch.optim.Adam([centre], lr=2.0)
    for _ in range(40):
        patch = fastdraw.crop(image, torch.cat([centre - 32, centre + 32], 1), 8)
        loss = (
            -(patch * torch.tensor([0.1, 0.3, 0.7, 1, 1, 0.7, 0.3, 0.1]))
            .mul(torch.tensor([0.1, 0.3, 0.7, 1, 1, 0.7, 0.3, 0.1])[:, None])
            .sum()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (centre.detach() - torch.tensor([[80.5, 44.5]])).abs().max() < 2
