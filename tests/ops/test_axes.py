"""A sigma and a stride of their own for x and y, and rectangular patches, on every backend."""

from __future__ import annotations

import pytest
import torch
from operators import WINDOWED, own_params
from torch import Tensor

import fastdraw
from fastdraw import reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# (B, C, H, W), (N_y, N_x): read whole, and by what the window sees; one filter along an axis; sides over a vector.
SHAPES = [((3, 2, 13, 20), (3, 7)), ((2, 1, 9, 6), (5, 1)), ((2, 2, 90, 70), (17, 4))]


def swapped(params: Tensor) -> Tensor:
    """x for y."""
    return params[..., [1, 0, 3, 2, 5, 4, 6]]


def doubled(params: Tensor) -> Tensor:
    """The seven numbers that say what five say."""
    return params[..., [0, 1, 2, 2, 3, 3, 4]]


@pytest.mark.levels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("name", ["read", "write", "filterbank"])
def test_own_numbers_for_each_axis(backend: str, device: str, name: str, shape, size, dtype: torch.dtype) -> None:
    WINDOWED[name](*shape, size, params=own_params(shape[0])).prove(dtype, device)


@pytest.mark.levels
@pytest.mark.parametrize("params", [own_params(2, 3), own_params(2, 3)[..., [0, 1, 2, 4, 6]]], ids=["own", "paper's"])
@pytest.mark.parametrize("name", ["read", "write"])
def test_several_windows_and_a_rectangular_patch(backend: str, device: str, name: str, params: Tensor) -> None:
    WINDOWED[name](2, 2, 30, 75, (4, 9), 3, params=params).prove(torch.float32, device)


@pytest.mark.levels
def test_equal_numbers_are_the_papers_five(backend: str, device: str) -> None:
    params, image = torch.randn(3, 5, device=device) * 0.6, torch.rand(3, 2, 20, 33, device=device)
    five, seven = (p.requires_grad_() for p in (params, doubled(params)))
    patch, again = fastdraw.read(image, five, 6), fastdraw.read(image, seven, 6)
    torch.testing.assert_close(again, patch, rtol=1e-6, atol=1e-6)
    (expected,) = torch.autograd.grad(patch.square().sum(), five)
    (found,) = torch.autograd.grad(again.square().sum(), seven)
    shares = torch.stack([found[:, 0], found[:, 1], found[:, 2] + found[:, 3], found[:, 4] + found[:, 5], found[:, 6]], 1)
    torch.testing.assert_close(shares, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.levels
def test_turning_the_image_turns_the_patch(backend: str, device: str) -> None:
    """No axis has the other's numbers."""
    params, image = own_params(2).float().to(device), torch.rand(2, 2, 70, 80, device=device)
    patch = fastdraw.read(image, params, (3, 8))
    torch.testing.assert_close(fastdraw.read(image.mT.contiguous(), swapped(params), (8, 3)).mT, patch, rtol=1e-4, atol=1e-5)
    drawn = fastdraw.write(patch, params, (70, 80))
    turned = fastdraw.write(patch.mT.contiguous(), swapped(params), (80, 70)).mT
    torch.testing.assert_close(turned, drawn, rtol=1e-4, atol=1e-5)


@pytest.mark.levels
def test_one_filter_has_no_stride(backend: str, device: str) -> None:
    """What stands for it may be anything."""
    params, image = own_params(2).float(), torch.rand(2, 1, 12, 14, device=device)
    odd = params.clone()
    odd[:, 5] = torch.nan
    patches = [fastdraw.read(image, p.to(device), (1, 4)) for p in (params, odd)]
    assert torch.equal(*patches)


@pytest.mark.parametrize(("size", "text"), [(4, "4"), ((2, 5), "(2, 5)")])
def test_glimpses_as_a_module(backend: str, size, text: str) -> None:
    glimpse, params = fastdraw.GaussianGlimpse(size), own_params(2, 3).float()
    image = torch.rand(2, 1, 9, 12)
    patch = glimpse(image, params)
    assert torch.equal(patch, fastdraw.read(image, params, size))
    assert torch.equal(glimpse.write(patch, params, (9, 12)), fastdraw.write(patch, params, (9, 12)))
    assert str(glimpse) == f"GaussianGlimpse(size={text})"
    assert not list(glimpse.parameters())
    with pytest.raises(ValueError, match=r"patch: expected shape \[..., \d, \d\]"):
        glimpse.write(patch[..., :3, :1], params, (9, 12))
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        fastdraw.GaussianGlimpse(0)


def test_a_window_by_hand() -> None:
    """sigma and stride of x are those of the columns; the stride's unit is the larger side's."""
    params = torch.tensor([[0.0, 0.0, 0.0, 2.0, 0.5, 0.0, 0.0]], dtype=torch.float64)
    w = reference.window(params, (3, 5), (11, 21))
    assert w.delta[0].tolist() == pytest.approx([5 * torch.tensor(0.5).exp().item(), 5.0], rel=1e-6)
    assert w.sigma[0].tolist() == pytest.approx([1.0, torch.tensor(1.0).exp().item()], rel=1e-6)
    bank = reference.filterbank(params, (3, 5), (11, 21))
    pixels = torch.arange(11, dtype=torch.float64)
    row = torch.exp(-((pixels - 10.0) ** 2) / (2 * w.sigma[0, 1] ** 2))
    torch.testing.assert_close(bank.y[0, 2], row / row.sum())


@pytest.mark.parametrize("name", ["read", "write", "filterbank"])
def test_gradients_of_the_specification(name: str) -> None:
    operator = WINDOWED[name](2, 2, 6, 5, (2, 3), params=own_params(2))
    inputs = [tensor.requires_grad_() for tensor in operator.inputs]
    assert torch.autograd.gradcheck(operator.specification, inputs)
    assert torch.autograd.gradgradcheck(operator.specification, inputs, atol=1e-4)
