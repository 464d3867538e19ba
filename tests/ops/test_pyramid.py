"""Wide windows read from smaller levels: how far they are from the exact read, and that narrow ones are the exact read."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastdraw
from fastdraw import reference
from fastdraw.pyramid import LEAST_SIGMA, LEAST_SIGMA_1


def params_of(boxes: list[list[float]], size, sides: tuple[int, int], **how) -> Tensor:
    return fastdraw.params_from_boxes(torch.tensor(boxes, dtype=torch.float64)[None], size, sides, **how)


def levels_of(pyramid: fastdraw.Pyramid, params: Tensor, size: tuple[int, int]) -> list[int]:
    return pyramid._level_of(params.flatten(0, -2), size).tolist()


#: Whole, part, past the edges by two sigma and less, and on one side only.
WIDE = [[0, 0, 300, 260], [30, 50, 250, 240], [-20, -20, 320, 280], [-9, 60, 150, 200]]


@pytest.mark.parametrize(("level", "places"), [(1, [0, 0.37, 0.5, 1, 4.5, 12.5, 31.9]), (2, [0, 0.5, 1, 12.5, 31.9])])
def test_the_bound(level: int, places: list[float]) -> None:
    """0.0014 and 0.0031 of the magnitude, for both axes together: of an error e along either, 2 e + e^2. Of all images whose
    magnitude is at most 1 the worst gives the sum of the weights' differences, and a pixel's weight is the read of an image
    that is 1 there. A level's narrowest sigma is its worst."""
    width = 65
    images = torch.eye(width, dtype=torch.float64).view(width, 1, 1, width).expand(-1, -1, 32, -1).contiguous()
    least = LEAST_SIGMA_1 if level == 1 else LEAST_SIGMA
    sigma = math.sqrt((4**level - 1) / 3 + least**2 * 4**level) * (1 + 1e-9)
    bounds = dict.fromkeys(places, 0.0007) | {-part * sigma: 0.00155 for part in (0.5, 1, 1.5, 1.999)}
    with fastdraw.backend("aten"):
        pyramid = fastdraw.Pyramid(images)
        for mu, bound in bounds.items():
            g_x, log_sigma2 = 2 * (mu + 1) / (width + 1) - 1, 2 * math.log(sigma)
            params = torch.tensor([[g_x, 0.1, log_sigma2, log_sigma2, 0, 0, 0]], dtype=torch.float64)
            assert levels_of(pyramid, params, (1, 1)) == [level]
            assert levels_of(pyramid, params - torch.tensor([0, 0, 1e-8, 1e-8, 0, 0, 0]), (1, 1)) == [level - 1]
            own = params.expand(width, -1)
            assert (pyramid.read(own, 1) - reference.read(images, own, 1)).abs().sum() < bound, mu


@pytest.mark.parametrize("kind", ["smooth", "noise", "ones"])
@pytest.mark.parametrize("numbers", [5, 7])
def test_patches_are_those_of_the_image(backend: str, device: str, kind: str, numbers: int) -> None:
    sides, size = (260, 300), 9
    y, x = torch.meshgrid(torch.arange(260.0), torch.arange(300.0), indexing="ij")
    image = {
        "smooth": torch.sin(x / 40) * torch.cos(y / 30 + 1),
        "noise": torch.rand(260, 300) * 2 - 1,
        "ones": torch.ones(260, 300),
    }
    image = image[kind].expand(1, 2, -1, -1).contiguous().to(device)
    params = params_of(WIDE, size, sides).float().to(device)
    params[..., -1] = 0.7
    if numbers == 5:
        params = params[..., [0, 1, 2, 4, 6]]
    pyramid = fastdraw.Pyramid(image)
    assert min(levels_of(pyramid, params, (size, size))) >= 1
    difference = (pyramid.read(params, size) - fastdraw.read(image, params, size)).abs().max() / 2.72**0.7
    assert difference < {"smooth": 1e-4, "noise": 1e-3, "ones": 1e-6}[kind]


def test_narrow_windows_are_exact(backend: str) -> None:
    """The same bits, beside wide ones; so are windows that stand outside, and what is NaN shows."""
    image, size = torch.rand(2, 3, 100, 120), 6
    boxes = torch.tensor([[[10.0, 10, 50, 50], [0, 0, 120, 100], [400, 0, 520, 100], [60, 70, 61, 75]]] * 2)
    params = fastdraw.params_from_boxes(boxes, size, (100, 120))
    pyramid = fastdraw.Pyramid(image)
    assert levels_of(pyramid, params, (size, size)) == [0, 2, 0, 0] * 2
    patch, exact = pyramid.read(params, size), fastdraw.read(image, params, size)
    assert torch.equal(patch[:, [0, 2, 3]], exact[:, [0, 2, 3]])
    assert not torch.equal(patch[:, 1], exact[:, 1])
    params[0, 1, 0] = torch.nan
    assert pyramid.read(params, size)[0, 1].isnan().all()


def test_gradients(backend: str) -> None:
    """To image and windows, near those of the exact read; and those of what it computes."""
    image = torch.rand(1, 2, 90, 110, dtype=torch.float64, requires_grad=True)
    params = params_of([[5, 8, 100, 85], [40, 40, 50, 50]], 5, (90, 110)).requires_grad_()
    weight = torch.randn(1, 2, 2, 5, 5, dtype=torch.float64)
    found = torch.autograd.grad((fastdraw.Pyramid(image).read(params, 5) * weight).sum(), (image, params))
    exact = torch.autograd.grad((fastdraw.read(image, params, 5) * weight).sum(), (image, params))
    for one, other in zip(found, exact, strict=True):
        assert (one - other).abs().max() < 0.02 * other.abs().max()


def test_gradcheck() -> None:
    image = torch.rand(1, 1, 17, 18, dtype=torch.float64, requires_grad=True)
    params = torch.tensor([[0.1, -0.1, 4.0, 4.2, 0.0, -0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    with fastdraw.backend("reference"):
        pyramid = fastdraw.Pyramid(image)
        assert levels_of(pyramid, params, (2, 3)) == [1]
        assert torch.autograd.gradcheck(lambda i, p: fastdraw.Pyramid(i).read(p, (2, 3)), (image, params))


def test_crops_and_bytes(backend: str) -> None:
    """Of any images, in any order."""
    image = torch.randint(0, 256, (3, 3, 130, 100), dtype=torch.uint8)
    boxes, index = torch.tensor([[0.0, 0, 100, 130], [3, 4, 20, 30], [-5, 10, 90, 120]]), torch.tensor([2, 2, 0])
    patch = fastdraw.Pyramid(image).crop(boxes, (5, 4), index, scale=1 / 255)
    exact = fastdraw.crop(image, boxes, (5, 4), index, scale=1 / 255)
    assert patch.dtype == torch.float32
    torch.testing.assert_close(patch, exact, rtol=0, atol=1e-3)
    half = fastdraw.Pyramid((image / 255).bfloat16()).crop(boxes, (5, 4), index)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=1e-2)
    alone = fastdraw.Pyramid(image).crop(boxes, (5, 4))
    torch.testing.assert_close(alone, fastdraw.crop(image, boxes, (5, 4)), rtol=0, atol=0.3)
    assert fastdraw.Pyramid(image).crop(boxes[:0], 4, index[:0]).shape == (0, 3, 4, 4)
    assert fastdraw.Pyramid(image).read(torch.zeros(3, 0, 5), 4).shape == (3, 0, 3, 4, 4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.tuples(st.integers(16, 150), st.integers(16, 150)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.tuples(*(st.floats(-limit, limit, width=32) for limit in (2, 2, 10, 10, 3, 3, 2))),
    numbers=st.sampled_from([5, 7]),
)
def test_any_window_is_within_the_bound(backend: str, sides, size, window, numbers: int) -> None:
    """Signs that no image's neighbours share."""
    image = torch.randint(0, 2, (1, 1, *sides)) * 2.0 - 1.0
    params = torch.tensor([window])[:, [0, 1, 2, 4, 6] if numbers == 5 else slice(None)]
    difference = fastdraw.Pyramid(image).read(params, size) - fastdraw.read(image, params, size)
    assert difference.abs().max() <= 0.0031 * params[0, -1].exp() + 1e-5


def test_small_images_have_no_levels(backend: str) -> None:
    image, params = torch.rand(2, 1, 15, 40), torch.randn(2, 5)
    pyramid = fastdraw.Pyramid(image)
    assert len(pyramid.levels) == 1
    assert torch.equal(pyramid.read(params, 3), fastdraw.read(image, params, 3))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"image: expected shape \[B, C, H, W\]"):
        fastdraw.Pyramid(torch.rand(9, 9))
    with pytest.raises(ValueError, match="image: expected at least 1, got 0"):
        fastdraw.Pyramid(torch.rand(1, 1, 0, 9))
    with pytest.raises(TypeError, match="image: expected a floating-point or uint8 tensor"):
        fastdraw.Pyramid(torch.zeros(1, 1, 9, 9).int())
    pyramid = fastdraw.Pyramid(torch.rand(2, 1, 30, 30))
    with pytest.raises(ValueError, match=r"params: expected shape \[2, 5\]"):
        pyramid.read(torch.zeros(3, 5), 4)
    meta = fastdraw.Pyramid(torch.rand(2, 1, 30, 30, device="meta"))
    with pytest.raises(ValueError, match="params: expected a tensor with values, which are read on the host"):
        meta.read(torch.zeros(2, 5, device="meta"), 4)
    with pytest.raises(ValueError, match="boxes: expected finite"):
        pyramid.crop(torch.full((2, 4), torch.nan), 4)
