"""GaussianGlimpse(size, antialias=True): sigma at half the stride or more, whatever the params say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fastdraw
from fastdraw import reference


def params_of(count: int, *shape: int) -> Tensor:
    return torch.randn(*shape, count, dtype=torch.float64) * 1.5


def seen(glimpse: fastdraw.GaussianGlimpse, params: Tensor, sides: tuple[int, int]) -> fastdraw.Window:
    """The window that the module reads by."""
    return reference.window(glimpse._placed(params, sides), glimpse.size, sides)


@pytest.mark.parametrize("size", [4, (3, 8), (1, 5), (6, 1)])
@pytest.mark.parametrize("count", [5, 7])
def test_sigma_is_half_the_stride_at_least(count: int, size) -> None:
    glimpse, params, sides = fastdraw.GaussianGlimpse(size, antialias=True), params_of(count, 64), (40, 60)
    before, after = reference.window(params, size, sides), seen(glimpse, params, sides)
    delta = before.delta
    if count == 7:
        # One sample has no stride.
        delta = delta * torch.tensor([n > 1 for n in ((size, size) if isinstance(size, int) else size)[::-1]])
    torch.testing.assert_close(after.sigma, torch.maximum(before.sigma, delta / 2))
    # Nothing else is changed, and both kinds are among these.
    assert all(torch.equal(one, other) for one, other in zip(before[:3], after[:3], strict=True))
    assert 0 < int((after.sigma > before.sigma * 1.001).sum()) < before.sigma.numel()


@pytest.mark.parametrize("count", [5, 7])
def test_a_wide_window_is_read_as_it_is(backend: str, count: int) -> None:
    """The same bits."""
    image, params = torch.rand(2, 3, 30, 40), params_of(count, 2, 3).float()
    params[..., 2 : count // 2 + 1] = 8.0
    params[..., -2] = params[..., -3] = -1.0
    if count == 5:
        params[..., 2] = 8.0
    plain, glimpse = fastdraw.GaussianGlimpse(5), fastdraw.GaussianGlimpse(5, antialias=True)
    assert torch.equal(glimpse(image, params), plain(image, params))
    patch = torch.rand(2, 3, 3, 5, 5)
    assert torch.equal(glimpse.write(patch, params, (30, 40)), plain.write(patch, params, (30, 40)))


def test_stripes_leave_no_alias(backend: str) -> None:
    """A window of zeros spans the image with a sigma of one pixel and a stride of 17: without the promise it aliases."""
    stripes = torch.cos(torch.arange(256) * (2 * torch.pi / 17)).expand(1, 1, 256, 256).contiguous()
    image, params = stripes, torch.zeros(1, 5)
    assert fastdraw.GaussianGlimpse(16)(image, params).abs().max() > 0.5
    # Those at the edge see half of their neighbourhood.
    assert fastdraw.GaussianGlimpse(16, antialias=True)(image, params)[..., 1:-1].abs().max() < 0.01


def test_reading_and_writing_stay_transposes(backend: str) -> None:
    glimpse = fastdraw.GaussianGlimpse((4, 6), antialias=True)
    image, patch = torch.randn(2, 2, 30, 40, dtype=torch.float64), torch.randn(2, 2, 4, 6, dtype=torch.float64)
    params = params_of(7, 2)
    params[:, -1] = 0.0
    torch.testing.assert_close((glimpse.write(patch, params, (30, 40)) * image).sum(), (glimpse(image, params) * patch).sum())


def test_gradients() -> None:
    """Of the narrow ones by the stride alone."""
    image = torch.randn(2, 2, 8, 9, dtype=torch.float64, requires_grad=True)
    params = (params_of(7, 2) * 0.5).requires_grad_()
    glimpse = fastdraw.GaussianGlimpse((2, 3), antialias=True)
    with fastdraw.backend("reference"):
        assert torch.autograd.gradcheck(glimpse, (image, params))
    narrow = params.detach().clone()
    narrow[:, 2:4] = -9.0
    narrow.requires_grad_()
    (grad,) = torch.autograd.grad(glimpse(image, narrow).square().sum(), narrow)
    assert (grad[:, 2:4] == 0).all()
    assert (grad[:, 4:6] != 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_any_dtype_and_any_finite_params(backend: str, dtype: torch.dtype) -> None:
    params = torch.full((1, 7), torch.finfo(dtype).max, dtype=dtype)
    params[:, -1] = 0.0
    for sign in (1, -1):
        patch = fastdraw.GaussianGlimpse(4, antialias=True)(torch.rand(1, 1, 9, 12).to(dtype), sign * params)
        assert patch.dtype == dtype
        assert patch.isfinite().all()


def test_mistakes() -> None:
    with pytest.raises(TypeError, match="antialias: expected True or False, got 0"):
        fastdraw.GaussianGlimpse(4, antialias=0.5)
    glimpse = fastdraw.GaussianGlimpse(4, antialias=True)
    assert str(glimpse) == "GaussianGlimpse(size=4, antialias=True)"
    image = torch.rand(2, 1, 6, 5)
    with pytest.raises(ValueError, match=r"params: expected shape \[2, 5\]"):
        glimpse(image, torch.zeros(2, 6))
    with pytest.raises(TypeError, match="params: expected a floating-point tensor"):
        glimpse(image, torch.zeros(2, 5).int())
    with pytest.raises(TypeError, match="params: expected a tensor"):
        glimpse(image, [0.0])
    with pytest.raises(ValueError, match=r"image: expected shape \[B, C, H, W\]"):
        glimpse(image[0], torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"image_size: expected \(height, width\)"):
        glimpse.write(torch.rand(2, 1, 4, 4), torch.zeros(2, 5), 6)
