"""The Triton kernels called directly, on a GPU or in Triton's interpreter: values and gradients by error budget, launches,
determinism. tests/ops/test_operators.py runs the public operators on them; here stands what the operators do not show.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from budget import WINDOWS, assert_within_budget, error
from fastdraw import reference
from fastdraw.kernels import triton as kernels
from fastdraw.kernels.triton import launch, lstm, tables
from fastdraw.kernels.triton.filterbank import filterbank_launch
from fastdraw.products import float32_products
from triton_forms import DEVICE, check_glimpse, moderate_params

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

#: (B, C, H, W, N), each with what it is there for.
SHAPES = [
    (1, 1, 1, 1, 1),  # the smallest of everything; sizes of 1 become constants in Triton
    (3, 1, 28, 28, 2),  # the paper's MNIST read; three images
    (2, 1, 28, 28, 5),  # the paper's MNIST write
    (1, 3, 54, 54, 12),  # the paper's SVHN: colour
    (2, 2, 17, 33, 7),  # primes, and one over a power of two; height and width differ
    (1, 1, 67, 70, 17),  # several tiles along both axes, the last ones not full; one over BLOCK_N = 16
    (1, 1, 40, 9, 64),  # many filters, more than the image is wide
    (1, 5, 31, 1, 3),  # one pixel wide
    (1, 2, 6, 70, 1),  # one filter, which has no stride
    (1, 2, 11, 9, 4),  # filters that need no padding: a power of two
    (1, 1, 9, 11, 8),  # the same, as wide as a tile of tf32 is deep
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_glimpse_shapes(shape, dtype):
    params_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    for power in (1, -1) if dtype == torch.float32 else (-1,):
        check_glimpse(shape, moderate_params(shape[0]), power, dtype, params_dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("row", WINDOWS, ids=str)
def test_glimpse_windows(row, dtype):
    params = torch.tensor([row], dtype=torch.float64)
    check_glimpse((1, 2, 9, 20, 3), params, 1, dtype, dtype)
    check_glimpse((1, 1, 20, 9, 12), params, -1, dtype, dtype)


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels launched, in order."""
    names: list[str] = []

    def counting(launcher: Any, *arguments: Any) -> bool:
        one = launcher(*arguments)
        if one is not None:
            names.append(one.kernel.__name__)
            launch.run(one)
        return one is not None

    for module in (kernels, lstm):
        monkeypatch.setattr(module, "launched", counting)
    return names


@pytest.mark.parametrize("params_dtype", DTYPES, ids=str)
def test_params_of_another_dtype(params_dtype):
    check_glimpse((2, 1, 10, 12, 4), moderate_params(2), 1, torch.float32, params_dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("height", "width", "size"), [(1, 1, 1), (28, 28, 5), (17, 150, 20)], ids=str)
def test_filterbank(height, width, size, dtype):
    def specification(params: Tensor, *weights: Tensor) -> list[Tensor]:
        params = params.detach().requires_grad_()
        outputs = reference.filterbank(params, size, (height, width))
        loss = sum((out * weight.to(out)).sum() for out, weight in zip(outputs, weights, strict=True))
        return [*outputs, *torch.autograd.grad(loss, params)]

    params = moderate_params(3).to(dtype)
    weights = [torch.randn(3, size, height), torch.randn(3, size, width), torch.randn(3)]
    exact, naive = specification(params.double(), *weights), specification(params, *weights)
    outputs = kernels.filterbank(params.to(DEVICE), size, height, width)
    grads = [weight.to(out) for weight, out in zip(weights, outputs, strict=True)]
    actual = [*outputs, kernels.filterbank_backward(*grads, params.to(DEVICE), size, height, width)]
    for a, n, e in zip(actual, naive, exact, strict=True):
        assert a.dtype == n.dtype
        assert_within_budget("filterbank", a, n, e, dtype)
    for rows in outputs[:2]:
        assert error(rows.sum(-1), torch.ones(3, size, dtype=torch.float64)) < 1e-5


@pytest.mark.parametrize("row", WINDOWS, ids=str)
def test_filterbank_windows(row):
    """No finite input gives NaN, and every row sums to one."""
    params = torch.tensor([row], device=DEVICE)
    y, x, gamma = kernels.filterbank(params, 5, 12, 7)
    for rows in (y, x):
        assert error(rows.sum(-1), torch.ones(1, 5, dtype=torch.float64)) < 1e-5
    grad = kernels.filterbank_backward(torch.ones_like(y), torch.ones_like(x), torch.ones_like(gamma), params, 5, 12, 7)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("column", range(5))
def test_nan_in_params_gives_nan(column):
    """In its own image and in no other."""
    params = torch.zeros(2, 5, device=DEVICE)
    params[0, column] = torch.nan
    image, patch = torch.randn(2, 1, 8, 8, device=DEVICE), torch.randn(2, 1, 3, 3, device=DEVICE)
    results = [kernels.read(image, params, 3, 1), kernels.write(patch, params, 8, 8, -1)]
    results += [*kernels.write_backward(image, patch, params, -1)]
    for result in results:
        assert result[0].isnan().any()
        assert result[1].isfinite().all()


@pytest.mark.parametrize("shape", [(1, 2, 1, 9), (2, 1, 7, 1), (1, 1, 1, 1)], ids=str)
def test_strides_of_dimensions_of_size_one_mean_nothing(shape):
    plain, params = torch.randn(shape, device=DEVICE), moderate_params(shape[0]).float().to(DEVICE)
    patch = torch.randn(*shape[:2], 3, 3, device=DEVICE)
    expected = [kernels.read(plain, params, 3, 1), *kernels.write_backward(plain, patch, params, -1)]
    for odd in (0, 1, 10**12, 2**62):
        strides = [odd if n == 1 else stride for n, stride in zip(shape, plain.stride(), strict=True)]
        image = plain.as_strided(shape, strides)
        assert launch.image_strides(image) == launch.image_strides(plain)
        actual = [kernels.read(image, params, 3, 1), *kernels.write_backward(image, patch, params, -1)]
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_released_memory_goes_to_no_kernel():
    for i in range(2):
        tensors = [torch.zeros(1, 1, 4, 4, device=DEVICE), torch.zeros(1, 5, device=DEVICE)]
        tensors[i].untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="expected a tensor in memory"):
            kernels.read(*tensors, 3, 1)


def test_tf32_follows_torchs_switch(monkeypatch):
    """Within tf32's eleven bits, and not within float32's: the switch reaches the kernels, and only then."""
    image, params = torch.randn(2, 1, 28, 28), moderate_params(2).float()
    exact = reference.read(image.double(), params.double(), 12)

    def read_error() -> float:
        return error(kernels.read(image.to(DEVICE), params.to(DEVICE), 12, 1), exact)

    monkeypatch.setattr(launch, "tf32_allowed", lambda: False)
    assert read_error() < 1e-5
    monkeypatch.undo()
    with float32_products("high"):
        assert launch.tf32_allowed() == (torch.version.hip is None)
        if launch.tf32_allowed():
            assert 1e-5 < read_error() < 2e-3


#: (B, I, H), each with what it is there for.
CELLS = [
    (1, 1, 1),  # the smallest of everything
    (3, 20, 17),  # primes, and one over a tile of hidden units
    (17, 7, 16),  # one over a tile of the batch
]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "products"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", CELLS, ids=str)
def test_lstm_step(shape, dtype, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(lstm, "lstm_blocks", lambda *_: None)
    batch, inputs, hidden = shape
    state = torch.float64 if dtype == torch.float64 else torch.float32
    h_like = [(batch, inputs), (batch, hidden)]
    weights = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
    x, h, *weights = (torch.randn(s, dtype=torch.float64).to(dtype) for s in h_like + weights)
    c, grad_c = (torch.randn(batch, hidden, dtype=torch.float64).to(state) for _ in range(2))
    grad_h = torch.randn(batch, hidden, dtype=torch.float64).to(dtype)

    def specification(to: torch.dtype, with_h: bool, with_c: bool) -> list[Tensor]:
        leaves = [tensor.to(to).requires_grad_() for tensor in (x, h, weights[0], weights[1], weights[2], weights[3])]
        old = c.to(to if to == torch.float64 else state).requires_grad_()
        new_h, new_c = reference.lstm_step(leaves[0], (leaves[1], old), *leaves[2:])
        loss = with_h * (new_h * grad_h.to(new_h)).sum() + with_c * (new_c * grad_c.to(new_c)).sum()
        grads = torch.autograd.grad(loss, [leaves[0], leaves[1], old, *leaves[2:5]])
        return [new_h, new_c, *grads]

    x, h, c, grad_h, grad_c, *weights = (tensor.to(DEVICE) for tensor in (x, h, c, grad_h, grad_c, *weights))
    h_new, c_new, gates = kernels.lstm_step(x, h, c, *weights)
    x, h, c, grad_h, grad_c, *weights = (tensor.cpu() for tensor in (x, h, c, grad_h, grad_c, *weights))
    for with_h, with_c in ((True, True), (True, False), (False, True)):
        exact, naive = (specification(to, with_h, with_c) for to in (torch.float64, dtype))
        given = [grad.to(DEVICE) if used else None for grad, used in ((grad_h, with_h), (grad_c, with_c))]
        grads = kernels.lstm_step_backward(*given, gates, c.to(DEVICE), c_new, *(t.to(DEVICE) for t in (x, h, *weights[:2])))
        for index, (a, n, e) in enumerate(zip((h_new, c_new, *grads), naive, exact, strict=True)):
            assert a.dtype == (state if index in (1, 4) else dtype)
            assert_within_budget(f"result {index}", a, n, e, dtype)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "products"])
def test_lstm_step_saturated_and_small(fused, monkeypatch):
    """tanh and sigmoid far out, where exp overflows, and near zero, where a difference of exponentials would cancel."""
    if not fused:
        monkeypatch.setattr(lstm, "lstm_blocks", lambda *_: None)
    values = torch.tensor([-1e30, -1e4, -89.0, -44.5, -1.0, -0.62, -1e-3, -1e-20, 0.0, 1e-6, 0.3, 0.63, 20.0, 200.0, 1e20])
    x = values[:, None]
    weight_ih, zero = torch.eye(4, 1).roll(2, 0), torch.zeros(4)
    arguments = (x, torch.zeros_like(x), torch.zeros_like(x), weight_ih, torch.zeros(4, 1), zero, zero)
    _, c_new, gates = kernels.lstm_step(*(tensor.to(DEVICE) for tensor in arguments))
    exact = torch.tanh(values.double())
    relative = (gates[:, 2].cpu().double() - exact).abs() / exact.abs().clamp(min=1e-30)
    assert float(relative.max()) < 1e-6
    assert torch.equal(c_new[:, 0], gates[:, 0] * gates[:, 2])


def test_launches(launches):
    image, patch = torch.randn(1, 3, 8, 8, device=DEVICE), torch.randn(1, 3, 2, 2, device=DEVICE)
    params = torch.zeros(1, 5, device=DEVICE)
    kernels.read(image, params, 2, 1)
    assert launches == ["read_kernel"]
    kernels.read_backward(patch, image, params, 1, True)
    assert launches[1:] == ["write_kernel", "window_grad_kernel"]
    kernels.read_backward(patch, image, params, 1, False)
    assert launches[3:] == ["window_grad_kernel"]
    kernels.write(patch[:, None].expand(1, 4, 3, 2, 2).contiguous(), params.expand(1, 4, 5).contiguous(), 8, 8, -1)
    assert launches[4:] == ["write_kernel"]
    kernels.write_backward(image, patch, params, -1)
    assert launches[5:] == ["window_grad_kernel"]
    outputs = kernels.filterbank(params, 2, 8, 8)
    kernels.filterbank_backward(*outputs, params, 2, 8, 8)
    assert launches[6:] == ["filterbank_kernel", "filterbank_grad_kernel"]
    x, h = torch.randn(2, 3, device=DEVICE), torch.randn(2, 4, device=DEVICE)
    weights = [torch.randn(16, 3, device=DEVICE), torch.randn(16, 4, device=DEVICE)]
    biases = [torch.randn(16, device=DEVICE)] * 2
    h_new, c_new, gates = kernels.lstm_step(x, h, h, *weights, *biases)
    kernels.lstm_step_backward(h_new, None, gates, h, c_new, x, h, *weights)
    assert launches[8:] == ["lstm_kernel", "lstm_backward_kernel"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_twice(dtype):
    image, patch = torch.randn(2, 2, 20, 40, device=DEVICE).to(dtype), torch.randn(2, 2, 6, 6, device=DEVICE).to(dtype)
    params = moderate_params(2).float().to(DEVICE)
    for once, again in zip(*([*kernels.write_backward(image, patch, params, -1)] for _ in range(2)), strict=True):
        assert torch.equal(once, again)


def test_filterbank_has_no_limit_on_size():
    """More filters than one program's rows, on both axes."""
    y, x, _ = kernels.filterbank(torch.zeros(1, 5, device=DEVICE), 35, 4, 200)
    blocks = tables.filterbank_blocks(35, 200, torch.float32).constants
    assert blocks["BLOCK_N"] < 35
    assert blocks["BLOCK_A"] < 200
    exact = reference.filterbank(torch.zeros(1, 5, dtype=torch.float64), 35, (4, 200))
    assert error(y, exact.y) < 1e-5
    assert error(x, exact.x) < 1e-5
    assert filterbank_launch(torch.zeros(1, 5), y, x, y).grid == (1, 2, 3)
