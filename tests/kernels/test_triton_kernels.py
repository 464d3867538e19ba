"""The Triton kernels called directly, on a GPU or in Triton's interpreter: values and gradients by error budget, launches,
determinism. tests/ops/test_operators.py runs the public operators on them; here stands what the operators do not show.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_calls import check_lstm_step
from operators import moderate_params
from shapes import WINDOWS
from triton_calls import DEVICE, check

from fastdraw import reference
from fastdraw.kernels import triton as kernels
from fastdraw.kernels.triton import launch, lstm, tables
from fastdraw.kernels.triton.filterbank import filterbank_launch
from fastdraw.products import float32_products
from fastdraw.testing import error

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
    (1, 1, 17, 150, 20),  # a filterbank of several programs along both axes
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_glimpse_shapes(shape, dtype):
    params_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    for power in (1, -1) if dtype == torch.float32 else (-1,):
        check(shape, moderate_params(shape[0]), power, dtype, params_dtype)


@pytest.mark.parametrize("shape", [(2, 3, 9, 11, 4), (1, 1, 40, 70, 12)], ids=str)
def test_bytes_are_the_numbers_that_they_are(shape):
    """Channels last, as photographs are decoded."""
    batch, channels, height, width, size = shape
    pixels = torch.randint(0, 256, (batch, height, width, channels), dtype=torch.uint8, device=DEVICE).permute(0, 3, 1, 2)
    params, grad = moderate_params(batch).float().to(DEVICE), torch.randn(batch, channels, size, size, device=DEVICE)
    patch = kernels.read(pixels, params, (size, size), 1)
    assert patch.dtype == torch.float32
    torch.testing.assert_close(patch, kernels.read(pixels.float(), params, (size, size), 1))
    found, wanted = (kernels.read_backward(grad, image, params, 1, False)[1] for image in (pixels, pixels.float()))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("row", WINDOWS, ids=str)
def test_glimpse_windows(row, dtype):
    params = torch.tensor([row], dtype=torch.float64)
    check((1, 2, 9, 20, 3), params, 1, dtype, dtype)
    check((1, 1, 20, 9, 12), params, -1, dtype, dtype)


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
    check((2, 1, 10, 12, 4), moderate_params(2), 1, torch.float32, params_dtype)


@pytest.mark.parametrize("column", range(5))
def test_nan_in_params_gives_nan(column):
    """In its own image and in no other."""
    params = torch.zeros(2, 5, device=DEVICE)
    params[0, column] = torch.nan
    image, patch = torch.randn(2, 1, 8, 8, device=DEVICE), torch.randn(2, 1, 3, 3, device=DEVICE)
    results = [kernels.read(image, params, (3, 3), 1), kernels.write(patch, params, 8, 8, -1)]
    results += [*kernels.write_backward(image, patch, params, -1)]
    for result in results:
        assert result[0].isnan().any()
        assert result[1].isfinite().all()


@pytest.mark.parametrize("shape", [(1, 2, 1, 9), (2, 1, 7, 1), (1, 1, 1, 1)], ids=str)
def test_strides_of_dimensions_of_size_one_mean_nothing(shape):
    plain, params = torch.randn(shape, device=DEVICE), moderate_params(shape[0]).float().to(DEVICE)
    patch = torch.randn(*shape[:2], 3, 3, device=DEVICE)
    expected = [kernels.read(plain, params, (3, 3), 1), *kernels.write_backward(plain, patch, params, -1)]
    for odd in (0, 1, 10**12, 2**62):
        strides = [odd if n == 1 else stride for n, stride in zip(shape, plain.stride(), strict=True)]
        image = plain.as_strided(shape, strides)
        assert launch.image_strides(image) == launch.image_strides(plain)
        actual = [kernels.read(image, params, (3, 3), 1), *kernels.write_backward(image, patch, params, -1)]
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_released_memory_goes_to_no_kernel():
    for i in range(2):
        tensors = [torch.zeros(1, 1, 4, 4, device=DEVICE), torch.zeros(1, 5, device=DEVICE)]
        tensors[i].untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="expected a tensor in memory"):
            kernels.read(*tensors, (3, 3), 1)


def test_tf32_follows_torchs_switch(monkeypatch):
    """Within tf32's eleven bits, and not within float32's: the switch reaches the kernels, and only then."""
    image, params = torch.randn(2, 1, 28, 28), moderate_params(2).float()
    exact = reference.read(image.double(), params.double(), 12)

    def read_error() -> float:
        return error(kernels.read(image.to(DEVICE), params.to(DEVICE), (12, 12), 1), exact)

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
    check_lstm_step(kernels, shape, dtype, DEVICE)


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
    kernels.read(image, params, (2, 2), 1)
    assert launches == ["read_kernel"]
    kernels.read_backward(patch, image, params, 1, True)
    assert launches[1:] == ["write_kernel", "window_grad_kernel"]
    kernels.read_backward(patch, image, params, 1, False)
    assert launches[3:] == ["window_grad_kernel"]
    kernels.write(patch[:, None].expand(1, 4, 3, 2, 2).contiguous(), params.expand(1, 4, 5).contiguous(), 8, 8, -1)
    assert launches[4:] == ["write_kernel"]
    kernels.write_backward(image, patch, params, -1)
    assert launches[5:] == ["window_grad_kernel"]
    outputs = kernels.filterbank(params, (2, 2), 8, 8)
    kernels.filterbank_backward(*outputs, params, (2, 2), 8, 8)
    assert launches[6:] == ["filterbank_kernel", "filterbank_grad_kernel"]
    x, h = torch.randn(2, 3, device=DEVICE), torch.randn(2, 4, device=DEVICE)
    weights = [torch.randn(16, 3, device=DEVICE), torch.randn(16, 4, device=DEVICE)]
    biases = [torch.randn(16, device=DEVICE)] * 2
    h_new, c_new, gates = kernels.lstm_step(x, h, h, *weights, *biases)
    kernels.lstm_step_backward(h_new, None, gates, h, c_new, x, h, *weights)
    assert launches[8:] == ["lstm_kernel", "lstm_backward_kernel"]


def test_filterbank_has_no_limit_on_size():
    """More filters than one program's rows, on both axes."""
    y, x, _ = kernels.filterbank(torch.zeros(1, 5, device=DEVICE), (35, 35), 4, 200)
    blocks = tables.filterbank_blocks(35, 200, torch.float32).constants
    assert blocks["BLOCK_N"] < 35
    assert blocks["BLOCK_A"] < 200
    exact = reference.filterbank(torch.zeros(1, 5, dtype=torch.float64), 35, (4, 200))
    assert error(y, exact.y) < 1e-5
    assert error(x, exact.x) < 1e-5
    assert filterbank_launch(torch.zeros(1, 5), y, x, y).grid == (1, 2, 3)
