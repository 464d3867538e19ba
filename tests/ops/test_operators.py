"""The public operators on every backend: values and gradients by error budget, registration, autocast, refusals."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operators import WINDOWED, filterbank, lstm_step
from shapes import GLIMPSES, LSTM, WINDOWS
from torch import Tensor

import fastdraw
from fastdraw import env, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Interpreter and emulator take their time: test_triton_kernels.py has their cases, of which some go the public way here.
SLOW = env.triton_interpreted() or "FASTDRAW_EMULATE" in os.environ
EXAMPLES = 4 if SLOW else 40
SHAPES, ROWS = (GLIMPSES[4:6], WINDOWS[1:6:2]) if SLOW else (GLIMPSES, WINDOWS)


#: Which of two gradients are wanted; a backward pass that wants none is never called.
NEEDS = [(True, True), (True, False), (False, True)]


@pytest.mark.levels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["read", "write"])
def test_read_and_write(backend: str, device: str, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    WINDOWED[name](*shape).prove(dtype, device)


@pytest.mark.levels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_filterbank(backend: str, device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    filterbank(*shape).prove(dtype, device)


@pytest.mark.levels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("values", ROWS)
def test_extreme_windows(backend: str, device: str, values: tuple[float, ...], name: str, dtype: torch.dtype) -> None:
    params = torch.tensor([values], dtype=torch.float64).clamp(-3e38, 3e38)
    WINDOWED[name](1, 2, 9, 13, 4, params=params).prove(dtype, device)


#: Of each of params, what is extreme; log gamma within what README promises gradients for.
EXTREMES = (
    *[(0.0, 0.1, -1.0, 40.0, -1e3, 1e6, 1e10, -1e20, 1e30, -3e38)] * 2,
    (0.0, -2.0, 5.0, -20.0, 30.0, -30.0, 45.0, 60.0, -60.0, 3e38, -3e38),
    (0.0, -3.0, 5.0, -20.0, 20.0, 40.0, -40.0, 60.0, -60.0, 3e38, -3e38),
    (0.0, 1.0, -20.0, 20.0),
)


@pytest.mark.levels
@pytest.mark.parametrize("shape", [(5, 7, 1), (9, 13, 4), (33, 17, 5), (3, 70, 2)])
def test_finite_params_have_finite_gradients(backend: str, device: str, shape: tuple[int, int, int]) -> None:
    """Extremes of all params together, and of two of them; sides that no vector divides."""
    height, width, size = shape
    windows = 2 if env.triton_interpreted() else 200
    picked = torch.stack([torch.tensor(v)[torch.randint(len(v), (windows,))] for v in EXTREMES], 1)
    picked[::2] *= torch.rand(len(picked[::2]), 5).argsort(1) < 2
    image, patch = (torch.rand(windows, 1, *sides, device=device) for sides in ((height, width), (size, size)))
    for module in (fastdraw, reference):
        params = picked.to(device).requires_grad_()
        outputs = [
            module.read(image, params, size),
            module.write(patch, params, (height, width)),
            *module.filterbank(params, size, (height, width)),
        ]
        for output in outputs:
            (grad,) = torch.autograd.grad(output.sum(), params, retain_graph=True)
            wrong = ~(
                grad.isfinite().all(1) & output.flatten(1 if output.dim() > 1 else 0).isfinite().view(windows, -1).all(1)
            )
            assert not wrong.any(), f"{module.__name__}: {picked[wrong.cpu()][0].tolist()} has {grad[wrong][0].tolist()}"


#: Limits of an image's sides, and of a window's numbers: windows anywhere, and such as see parts of large images.
LIMITS = [(50, (50, 50, 30, 30, 5, 5, 8)), (90 if SLOW else 260, (2, 2, 14, 14, 6, 6, 5))]


@pytest.mark.levels
@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(WINDOWED)),
    limits=st.sampled_from(LIMITS),
    shape=st.tuples(*(st.integers(1, high) for high in (3, 3, 260, 260))),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    several=st.none() | st.integers(1, 3),
    numbers=st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 7), min_size=9, max_size=9),
    own=st.booleans(),
)
def test_any_shape_and_window(backend: str, device: str, name, limits, shape, size, several, numbers, own) -> None:
    """own: sigma and stride of each axis."""
    several = None if name == "filterbank" else several
    sides = [1 + side % limits[0] for side in shape[2:]]
    params = torch.tensor(numbers, dtype=torch.float64) * torch.tensor(limits[1])
    params = params[: shape[0] * (several or 1)].view(shape[0], *([] if several is None else [several]), 7)
    params = params if own else params[..., [0, 1, 2, 4, 6]]
    WINDOWED[name](*shape[:2], *sides, size, several, params=params).prove(torch.float32, device)


@pytest.mark.levels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64, 1, 1), (5, 3, 7), (33, 65, 17), (1, 130, 64)])
def test_lstm_step(backend: str, device: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """(B, I, H): one input and one unit, primes, one over powers of two, one image."""
    lstm_step(*shape).prove(dtype, device, same_dtypes=False)


@pytest.mark.levels
def test_saturated_lstm_gates(backend: str, device: str) -> None:
    weights = [torch.zeros(20, 3), torch.zeros(20, 5), torch.tensor([300.0, -300.0, 1e30, 0.0, -1e30] * 4), torch.zeros(20)]
    tensors = [torch.randn(4, 3), torch.randn(4, 5), 1e4 * torch.randn(4, 5), *weights]
    x, h, c, *w = leaves = [tensor.to(device).requires_grad_() for tensor in tensors]
    actual = fastdraw.lstm_step(x, (h, c), *w)
    torch.testing.assert_close([t.cpu() for t in actual], list(reference.lstm_step(tensors[0], tuple(tensors[1:3]), *weights)))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(actual, leaves, actual))


@pytest.mark.levels
@pytest.mark.parametrize("log_sigma", [0.0, 44.0, 60.0, 88.0])
def test_a_kl_that_nobody_asked_about_has_no_gradient(backend: str, device: str, log_sigma: float) -> None:
    """Where sigma^2 is infinite in float32 and sigma is not, `reconstruct` has the reference's gradient."""
    models = [package.DRAW((1, 5, 6), 2, 3, 3, 2, 2).to(device) for package in (fastdraw, reference)]
    models[1].load_state_dict(models[0].state_dict())
    x, noise = torch.rand(2, 1, 5, 6, device=device), torch.randn(2, 2, 3, device=device)
    grads = []
    for model in models:
        with torch.no_grad():
            model.latent.bias[3:] = log_sigma
            model.encoder.weight_ih.zero_()
        model.reconstruct(x, noise).sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for actual, expected in zip(*grads, strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_state_of_half_precision_is_float32(backend: str, device: str) -> None:
    x, h, c, *weights = (torch.randn(size, dtype=torch.bfloat16, device=device) for size in LSTM)
    h, c = fastdraw.lstm_step(x, (h, c), *weights)
    assert (h.dtype, c.dtype) == (torch.bfloat16, torch.float32)
    fastdraw.lstm_step(x, (h, c), *weights)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 0, 4, 4)])
def test_empty_batches(backend: str, device: str, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, device=device).requires_grad_()
    params = torch.randn(shape[0], 5, device=device).requires_grad_()
    patch = fastdraw.read(image, params, 3)
    drawn = fastdraw.write(patch, params, (6, 5))
    assert patch.shape == (*shape[:2], 3, 3)
    assert drawn.shape == (*shape[:2], 6, 5)
    drawn.sum().backward()
    assert torch.equal(params.grad, torch.zeros_like(params))
    bank = fastdraw.filterbank(params[:0], 3, (4, 5))
    assert [tuple(t.shape) for t in bank] == [(0, 3, 4), (0, 3, 5), (0,)]


@pytest.mark.levels
def test_strided_and_expanded_inputs(backend: str, device: str) -> None:
    wide = torch.rand(5, 9, 3, 8, device=device)
    image = wide.permute(0, 2, 3, 1)[::2]
    params = torch.randn(1, 10, device=device)[:, ::2].expand(3, 5)
    torch.testing.assert_close(fastdraw.read(image, params, 3), fastdraw.read(image.contiguous(), params.contiguous(), 3))
    patch = torch.rand(1, 3, 4, 4, device=device).expand(3, 3, 4, 4).mT
    drawn = fastdraw.write(patch.contiguous(), params.contiguous(), (5, 6))
    torch.testing.assert_close(fastdraw.write(patch, params, (5, 6)), drawn)
    # A gradient that autograd hands over expanded, from sum().
    leaf = params.contiguous().requires_grad_()
    (expanded,) = torch.autograd.grad(fastdraw.read(image, leaf, 3).sum(), leaf)
    (plain,) = torch.autograd.grad((fastdraw.read(image, leaf, 3) * torch.ones(3, 3, 3, 3, device=device)).sum(), leaf)
    torch.testing.assert_close(expanded, plain)


def test_gradients_not_asked_for(backend: str, device: str) -> None:
    image, patch = torch.rand(2, 1, 5, 5, device=device), torch.rand(2, 1, 3, 3, device=device)
    params = torch.randn(2, 5, device=device).requires_grad_()
    fastdraw.read(image, params, 3).sum().backward()
    fastdraw.write(patch, params, (5, 5)).sum().backward()
    assert image.grad is None
    assert patch.grad is None
    assert not fastdraw.read(image, params.detach(), 3).requires_grad
    with torch.no_grad():
        assert not fastdraw.read(image, params, 3).requires_grad
    image.requires_grad_()
    fastdraw.read(image, params.detach(), 3).sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("name", ["filterbank", "read", "write", "lstm_step"])
def test_double_backward_is_refused_with_a_sentence(backend: str, device: str, name: str) -> None:
    params = torch.randn(2, 5, device=device).requires_grad_()
    image, patch = torch.rand(2, 1, 5, 5, device=device), torch.rand(2, 1, 3, 3, device=device)
    x = torch.randn(2, 3, device=device).requires_grad_()
    h, *weights = (torch.randn(size, device=device) for size in [(2, 4), (16, 3), (16, 4), (16,), (16,)])
    output, leaf = {
        "filterbank": lambda: (fastdraw.filterbank(params, 3, (5, 5)).y, params),
        "read": lambda: (fastdraw.read(image, params, 3), params),
        "write": lambda: (fastdraw.write(patch, params, (5, 5)), params),
        "lstm_step": lambda: (fastdraw.lstm_step(x, (h, h), *weights)[0], x),
    }[name]()
    (grad,) = torch.autograd.grad(output.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=f"fastdraw.{name} cannot be differentiated twice"):
        grad.sum().backward()


def test_opcheck(backend: str, device: str) -> None:
    ops = torch.ops.fastdraw
    params = torch.randn(2, 5, device=device).requires_grad_()
    image, patch = (torch.randn(2, 2, *sides, device=device).requires_grad_() for sides in ((5, 4), (3, 3)))
    grads = [torch.randn(size, device=device) for size in [(2, 3, 5), (2, 3, 4), (2,), (2, 2, 3, 3), (2, 2, 5, 4)]]
    lstm = [torch.randn(size, device=device).requires_grad_() for size in LSTM]
    x, h, c, weight_ih, weight_hh, *_ = (tensor.detach() for tensor in lstm)
    gates = torch.rand(2, 16, device=device)
    plain = params.detach(), image.detach(), patch.detach()
    several = torch.randn(2, 2, 5, device=device).requires_grad_()
    patches = torch.randn(2, 2, 2, 3, 3, device=device).requires_grad_()
    last = plain[1].to(memory_format=torch.channels_last)
    seven = torch.randn(2, 7, device=device).requires_grad_()
    for operator, arguments in [
        (ops.filterbank.default, (params, 3, 3, 5, 4)),
        (ops.read.default, (image, params, 3, 3)),
        (ops.write.default, (patch, params, 5, 4)),
        (ops.lstm_step.default, tuple(lstm)),
        (ops.filterbank_backward.default, (*grads[:3], plain[0])),
        (ops.read.default, (image, several, 3, 3)),
        (ops.read.default, (image, seven, 2, 3)),
        (ops.write.default, (patch, seven, 5, 4)),
        (ops.filterbank.default, (seven, 2, 3, 5, 4)),
        (ops.write.default, (patches, several, 5, 4)),
        *((ops.read_backward.default, (grads[3], plain[1], plain[0], *needs)) for needs in NEEDS),
        *((ops.write_backward.default, (grads[4], plain[2], plain[0], *needs)) for needs in NEEDS),
        (ops.read_backward.default, (patches.detach(), last, several.detach(), True, True)),
        (ops.write_backward.default, (grads[4], patches.detach(), several.detach(), True, True)),
        (ops.lstm_step_backward.default, (h, c, gates, c, c, x, h, weight_ih, weight_hh)),
    ]:
        torch.library.opcheck(operator, (*arguments, backend))


def test_autocast_keeps_geometry_and_state_in_float32(backend: str, device: str) -> None:
    params, image = torch.randn(2, 5, device=device), torch.rand(2, 1, 9, 9, device=device)
    x, h, c, *weights = (torch.randn(size, device=device).requires_grad_() for size in LSTM)
    with torch.autocast(device, torch.bfloat16):
        patch = fastdraw.read(image.bfloat16(), params.bfloat16(), 3)
        new_h, new_c = fastdraw.lstm_step(x, (h, c), *weights)
        torch.testing.assert_close(patch, fastdraw.read(image.bfloat16().float(), params.bfloat16().float(), 3))
    assert patch.dtype == torch.float32
    assert (new_h.dtype, new_c.dtype) == (torch.bfloat16, torch.float32)
    exact_h, exact_c = reference.lstm_step(x, (h, c), *weights)
    torch.testing.assert_close(new_c, exact_c, rtol=2e-2, atol=2e-2)
    grads = torch.autograd.grad(new_h.float().sum() + new_c.sum(), (x, h, c, *weights))
    exact = torch.autograd.grad(exact_h.sum() + exact_c.sum(), (x, h, c, *weights))
    for grad, value in zip(grads, exact, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, value, rtol=5e-2, atol=5e-2)


def test_torch_compile_sees_whole_operators(backend: str, device: str) -> None:
    def step(image: Tensor, params: Tensor) -> Tensor:
        return fastdraw.write(fastdraw.read(image, params, 3).tanh(), params, (5, 6)).square().sum()

    image, params = torch.rand(2, 1, 6, 5, device=device), torch.randn(2, 5, device=device).requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(image, params), params)
    (expected,) = torch.autograd.grad(step(image, params), params)
    torch.testing.assert_close(grad, expected)


@pytest.mark.levels
def test_nan_goes_in_and_comes_out(backend: str, device: str) -> None:
    params = torch.zeros(2, 5, device=device)
    params[0, 0] = float("nan")
    patch = fastdraw.read(torch.rand(2, 1, 6, 6, device=device), params, 3)
    assert patch[0].isnan().all()
    assert patch[1].isfinite().all()


@pytest.mark.levels
@pytest.mark.parametrize("image_size", [(64, 64), (70, 66), (13, 201)])
@pytest.mark.parametrize(
    "values", [(0.1, 0, -60, 30, 0), (0.1, 0, -30, 60, 0), (1e10, 0, -60, 0, 0), (-1e30, 1e20, -40, 0, 0)]
)
def test_sharp_windows_far_away_have_gradients(backend: str, device: str, values: tuple, image_size: tuple[int, int]) -> None:
    """Lanes behind a row's end, where exponents would be infinite, count for nothing."""
    image, patch = torch.rand(1, 2, *image_size), torch.rand(1, 2, 4, 4)
    calls = {
        "read": lambda module, params: module.read(image.to(params), params, 4),
        "write": lambda module, params: module.write(patch.to(params), params, image_size),
        "filterbank": lambda module, params: module.filterbank(params, 4, image_size).x.square(),
    }
    for name, call in calls.items():
        low = torch.tensor([values], dtype=torch.float32, device=device).requires_grad_()
        exact = torch.tensor([values], dtype=torch.float64, device=device).requires_grad_()
        (actual,) = torch.autograd.grad(call(fastdraw, low).sum(), low)
        (expected,) = torch.autograd.grad(call(reference, exact).sum(), exact)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-3, msg=lambda m, name=name: f"{name}: {m}")
