"""The specification itself: its equations written out in loops, its derivatives, and properties that must hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapes import WINDOWS
from torch.autograd import gradcheck, gradgradcheck

from fastdraw import reference


def filters_by_the_paper(g: float, log_sigma2: float, log_delta: float, size: int, length: int, longer: int) -> torch.Tensor:
    """Equations 19 to 26 along one axis, counting from 1 as the paper does, in plain Python."""
    centre = (length + 1) / 2 * (g + 1)
    delta = (longer - 1) / (size - 1) * math.exp(log_delta) if size > 1 else 0.0
    rows = []
    for i in range(1, size + 1):
        mu = centre + (i - size / 2 - 0.5) * delta
        row = [math.exp(-((a - mu) ** 2) / (2 * math.exp(log_sigma2))) for a in range(1, length + 1)]
        rows.append([value / sum(row) for value in row])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("size", "height", "width"), [(2, 28, 28), (5, 9, 14), (1, 6, 3), (12, 54, 54)])
def test_filters_are_the_papers(size: int, height: int, width: int) -> None:
    params = torch.tensor([[0.3, -0.2, 0.4, -0.5, 0.7]], dtype=torch.float64)
    bank = reference.filterbank(params, size, (height, width))
    longer = max(height, width)
    torch.testing.assert_close(bank.x[0], filters_by_the_paper(0.3, 0.4, -0.5, size, width, longer), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(bank.y[0], filters_by_the_paper(-0.2, 0.4, -0.5, size, height, longer), rtol=1e-12, atol=1e-14)
    assert bank.gamma.item() == pytest.approx(math.exp(0.7), rel=1e-14)


def test_the_default_window_spans_the_image_symmetrically() -> None:
    """g~ = 0 and delta~ = 1: the outer filters stand on the first and the last pixel (a 0-based grid would miss by one)."""
    params = torch.tensor([[0.0, 0.0, -10.0, 0.0, 0.0]], dtype=torch.float64)
    bank = reference.filterbank(params, 2, (28, 28))
    assert bank.x[0].argmax(-1).tolist() == [0, 27]
    torch.testing.assert_close(bank.x, bank.x.flip(-1, -2))


def test_read_and_write_are_sums_over_pixels() -> None:
    params = torch.tensor([[0.3, -0.2, 0.4, -0.5, 0.7]], dtype=torch.float64)
    image, patch = torch.rand(1, 2, 6, 5).double(), torch.randn(1, 2, 3, 3).double()
    y, x, gamma = reference.filterbank(params, 3, (6, 5))
    glimpse = gamma * torch.einsum("nh,chw,mw->cnm", y[0], image[0], x[0])
    drawn = torch.einsum("nh,cnm,mw->chw", y[0], patch[0], x[0]) / gamma
    torch.testing.assert_close(reference.read(image, params, 3)[0], glimpse)
    torch.testing.assert_close(reference.write(patch, params, (6, 5))[0], drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", WINDOWS)
def test_rows_sum_to_one_and_nothing_is_nan(values: tuple[float, ...], dtype: torch.dtype) -> None:
    params = torch.tensor([values], dtype=dtype, requires_grad=True)
    bank = reference.filterbank(params, 4, (9, 13))
    one = torch.ones((), dtype=dtype)
    torch.testing.assert_close(bank.y.sum(-1), one.expand(1, 4))
    torch.testing.assert_close(bank.x.sum(-1), one.expand(1, 4))
    (bank.y.square().sum() + bank.x.square().sum() + bank.gamma.sum()).backward()
    assert params.grad is not None
    assert torch.isfinite(params.grad).all()


def test_operators_are_differentiable_twice() -> None:
    params = torch.randn(2, 5).double().requires_grad_()
    image, patch = torch.rand(2, 2, 5, 4).double().requires_grad_(), torch.randn(2, 1, 3, 3).double().requires_grad_()
    for function, inputs in [
        (lambda p: reference.filterbank(p, 3, (5, 4)), (params,)),
        (lambda i, p: reference.read(i, p, 3), (image, params)),
        (lambda w, p: reference.write(w, p, (5, 4)), (patch, params)),
    ]:
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_lstm_step_is_lstm_cell_and_differentiable_twice() -> None:
    cell = torch.nn.LSTMCell(3, 4).double()
    x, h, c = torch.randn(2, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    weights = reference.lstm_weights(cell)
    torch.testing.assert_close(reference.lstm_step(x, (h, c), *weights), cell(x, (h, c)))
    inputs = tuple(t.detach().requires_grad_() for t in (x, h, c, *weights))
    step = lambda x, h, c, *w: reference.lstm_step(x, (h, c), *w)  # noqa: E731
    assert gradcheck(step, inputs)
    assert gradgradcheck(step, inputs)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_kl_is_that_of_torch_distributions(mean: float, log_sigma: float) -> None:
    mu, s = torch.full((1, 7), mean).double(), torch.full((1, 7), log_sigma).double()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, s.exp()), normal(torch.zeros_like(mu), 1.0)).sum(1)
    torch.testing.assert_close(reference.kl_divergence(mu, s), expected)


def test_a_model_is_differentiable_twice() -> None:
    model = reference.DRAW((1, 4, 3), glimpses=2, hidden_size=3, latent_size=2, read_size=2, write_size=2).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, noise = torch.rand(2, 1, 4, 3).double(), torch.randn(2, 2, 2).double()
    names = [name for name, _ in model.named_parameters()]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x, noise)).loss

    weights = tuple(p.detach().requires_grad_() for p in model.parameters())
    assert gradcheck(loss, weights, fast_mode=True)
    assert gradgradcheck(loss, weights, fast_mode=True)
