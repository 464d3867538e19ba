"""The kernels for the CPU, C++ and plain ATen, function by function against the reference in float64."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from kernel_calls import LARGE, check_glimpse, check_lstm_step, inputs, kernel_results, needs_library
from levels import levels
from torch import Tensor

from fastdraw.kernels import aten, cpu
from fastdraw.kernels.cpu.sizes import ElementwiseSizes, named
from fastdraw.ops.contract import wide_dtype

MODULES = [pytest.param(aten, id="aten"), pytest.param(cpu, id="cpu", marks=needs_library)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

#: Beside those of shapes.py, on which tests/ops/test_operators.py proves every backend at every instruction set.
SHAPES = [
    (3, 2, 15, 31, 16),  # one under a vector of every instruction set; N a whole vector
    (17, 1, 20, 16, 3),  # a width of whole vectors; more images than one chunk of tasks
    (1, 2, 129, 19, 128),  # N far above the image's width, and products deeper than one block
    (1, 1, 70, 35, 13),  # twice a vector and a bit: full and partial columns, uneven blocks of rows
    *LARGE,
]


@pytest.fixture(params=["aten", *levels()])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Plain ATen, and C++ on each instruction set."""
    if request.param == "aten":
        return aten
    original = cpu.kernels
    monkeypatch.setattr(cpu, "kernels", lambda dtype: original(dtype, request.param))
    return cpu


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_glimpses(either: ModuleType, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    low = [t.to(dtype) for t in inputs(shape)]
    for power in (1, -1) if dtype == torch.float32 else (1,):
        check_glimpse(either, *low, power)


@pytest.mark.parametrize(("dtype", "params_dtype"), [(torch.float64, torch.float32), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("kernels", MODULES)
def test_params_of_another_dtype(kernels: ModuleType, dtype: torch.dtype, params_dtype: torch.dtype) -> None:
    params, image, patch = inputs((2, 2, 9, 11, 3))
    params, image, patch = params.to(params_dtype), image.to(dtype), patch.to(dtype)
    # Arithmetic is float64 where the data is, and float32 otherwise; then the same bits as with everything in that dtype.
    wide = wide_dtype(dtype)
    expected = kernel_results(kernels, params.to(wide), image.to(wide), patch.to(wide))
    actual = kernel_results(kernels, params, image, patch)
    for name in ("read", "read image", "write", "write patch"):
        assert torch.equal(actual[name], expected[name].to(dtype)), name
    for name in ("read params", "write params"):
        assert torch.equal(actual[name], expected[name].to(params_dtype)), name


@pytest.mark.parametrize("kernels", MODULES)
def test_the_image_gradient_is_made_on_request_only(kernels: ModuleType) -> None:
    params, image, patch = inputs((2, 3, 12, 7, 4))
    nothing, alone = kernels.read_backward(patch, image, params, 1, False)
    assert nothing is None
    assert torch.equal(alone, kernels.read_backward(patch, image, params, 1, True)[1])


@pytest.mark.parametrize("kernels", MODULES)
def test_params_beyond_their_limits_have_no_gradient(kernels: ModuleType) -> None:
    params, image, patch = inputs((2, 1, 9, 9, 3))
    params[0] = torch.tensor([0.1, 0.1, 60.0, 0.2, -60.0])
    params[1] = torch.tensor([0.1, 2e30, 60.1, -61.0, 60.5])
    actual = kernel_results(kernels, params, image, patch)
    for name in ("read params", "write params"):
        assert (actual[name][1, 1:] == 0).all()
        assert (actual[name][0, 3:] != 0).all()


@pytest.mark.parametrize("kernels", MODULES)
def test_nan_stays_in_its_image(kernels: ModuleType) -> None:
    """Whatever is NaN gives NaN for its own image, and leaves no trace in the next one, nor in the scratch of a thread."""
    params, image, patch = (t.float() for t in inputs((3, 1, 11, 19, 3)))
    clean = kernel_results(kernels, params, image, patch)
    for index in range(5):
        bad = params.clone()
        bad[1, index] = float("nan")
        for name, result in kernel_results(kernels, bad, image, patch).items():
            assert torch.equal(result[::2], clean[name][::2]), name
            if name in ("read", "write"):
                assert result[1].isnan().all(), (name, index)
    image[1], patch[1] = float("nan"), float("nan")
    for name, result in kernel_results(kernels, params, image, patch).items():
        assert torch.equal(result[::2], clean[name][::2]), name
        if name in ("read", "write", "read image", "write patch"):
            assert result[1].isnan().all(), name
    for name, result in kernel_results(kernels, params, torch.zeros_like(image), torch.zeros_like(patch)).items():
        assert not result.isnan().any(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),  # the smallest
        (5, 3, 7),  # primes, less than a vector
        (3, 65, 33),  # one over two vectors, so that a strip of columns ends early
        (128, 264, 256),  # the paper's encoder, large enough for oneDNN
    ],
)
@pytest.mark.parametrize("kernels", MODULES)
def test_lstm_step(kernels: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check_lstm_step(kernels, shape, dtype)


def elementwise(function: int, x: Tensor, level: int | None = None) -> Tensor:
    y = torch.empty_like(x)
    cpu.kernels(x.dtype, level).elementwise(
        named(ElementwiseSizes, function=function, count=x.numel()), x.data_ptr(), y.data_ptr()
    )
    return y


LEVELS = [pytest.param(level, marks=needs_library) for level in levels() or [0]]


def units_in_the_last_place(actual: Tensor, exact: Tensor) -> float:
    """The largest distance from float64's `exact`, in steps of float32 there."""
    rounded = exact.float()
    step = (torch.nextafter(rounded.abs(), torch.tensor(float("inf"))) - rounded.abs()).double()
    return float(((actual.double() - exact).abs() / step).max())


@pytest.mark.parametrize("level", LEVELS)
def test_elementary_functions(level: int) -> None:
    x = torch.cat([torch.linspace(-110, 88.7, 400_003), torch.linspace(-1.3, 1.3, 100_001), torch.logspace(-40, 0, 999)])
    x = torch.cat([x, -x[-999:]])
    assert units_in_the_last_place(elementwise(0, x, level), x.double().exp()) <= 2
    assert units_in_the_last_place(elementwise(2, x, level), x.double().tanh()) <= 4
    assert units_in_the_last_place(elementwise(1, x[x > -87], level), x[x > -87].double().sigmoid()) <= 4
    # Below that, 1 / (1 + exp(-x)) is all there is, and exp(-x) overflows.
    assert (elementwise(1, x[x <= -87], level) <= 2e-38).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", LEVELS)
def test_elementary_functions_at_the_edges(level: int, dtype: torch.dtype) -> None:
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([0.0, -0.0, inf, -inf, nan, 1e30, -1e30, -1e4], dtype=dtype)
    for function, expected in enumerate([torch.exp, torch.sigmoid, torch.tanh]):
        torch.testing.assert_close(elementwise(function, x, level), expected(x), equal_nan=True, rtol=1e-6, atol=1e-38)
