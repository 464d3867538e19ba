"""What only a CUDA device can show, at the sizes that people use: `make gpu` runs this, `make test` leaves it out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fastdraw
from benchmarks.cases import window_params
from benchmarks.models import gradients
from benchmarks.models import rounded as rounded_weights
from budget import GLIMPSES, assert_errors_within_budget, error
from fastdraw import reference
from fastdraw.profile.gradients import as_list, differentiate, leaves, matmul_precision

DEVICE, BACKEND = "cuda", "triton"

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PRECISIONS = ["float32", "tf32", "bfloat16", "float16", "float64"]

#: (B, C, H, W, N), each with what it is there for; the odd ones of budget.py come beside them.
REAL = [
    (128, 1, 28, 28, 2),  # the paper's MNIST read
    (128, 1, 28, 28, 5),  # the paper's MNIST write
    (128, 1, 100, 100, 12),  # the paper's cluttered MNIST
    (64, 3, 54, 54, 12),  # the paper's SVHN
    (4096, 1, 28, 28, 5),  # more images than a device runs at once
    (1, 3, 1024, 1536, 16),  # one image of more than a megapixel
]
#: (B, I, h)
CELLS = [
    (128, 264, 256),  # the paper's MNIST encoder
    (128, 100, 256),  # its decoder
    (64, 1664, 800),  # the paper's SVHN encoder
    (1, 1, 1),  # the smallest of everything
    (17, 33, 65),  # prime, and one over a power of two
    (257, 7, 31),  # one over a power of two in the batch, narrower than a block elsewhere
]


class Subject(NamedTuple):
    """An operator, what it has to equal, its float64 inputs, and which of them is params, if any."""

    operator: Callable[..., Any]
    specification: Callable[..., Any]
    inputs: list[Tensor]
    params: int | None


def read(b: int, c: int, h: int, w: int, n: int) -> Subject:
    image = torch.rand(b, c, h, w, dtype=torch.float64)
    return Subject(lambda i, p: fastdraw.read(i, p, n), lambda i, p: reference.read(i, p, n), [image, window_params(b)], 1)


def write(b: int, c: int, h: int, w: int, n: int) -> Subject:
    patch = torch.randn(b, c, n, n, dtype=torch.float64)
    pair = (lambda q, p: fastdraw.write(q, p, (h, w)), lambda q, p: reference.write(q, p, (h, w)))
    return Subject(*pair, [patch, window_params(b)], 1)


def filterbank(b: int, c: int, h: int, w: int, n: int) -> Subject:
    pair = (lambda p: fastdraw.filterbank(p, n, (h, w)), lambda p: reference.filterbank(p, n, (h, w)))
    return Subject(*pair, [window_params(b)], 0)


def lstm_step(b: int, i: int, h: int) -> Subject:
    shapes = [(4 * h, i), (4 * h, h), (4 * h,), (4 * h,)]
    states = [torch.randn(b, k, dtype=torch.float64) for k in (i, h, h)]
    weights = [torch.empty(shape, dtype=torch.float64).uniform_(-(h**-0.5), h**-0.5) for shape in shapes]
    pair = (
        lambda x, hidden, c, *w: fastdraw.lstm_step(x, (hidden, c), *w),
        lambda x, hidden, c, *w: reference.lstm_step(x, (hidden, c), *w),
    )
    return Subject(*pair, [*states, *weights], None)


#: One of each operator, of moderate size, for what does not hang on shapes.
SUBJECTS = {
    "read": lambda: read(32, 2, 28, 33, 5),
    "write": lambda: write(32, 2, 28, 33, 5),
    "filterbank": lambda: filterbank(32, 1, 28, 33, 5),
    "lstm_step": lambda: lstm_step(32, 40, 65),
}


def torch_dtype(precision: str) -> torch.dtype:
    return torch.float32 if precision == "tf32" else getattr(torch, precision)


def narrowed(subject: Subject, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The inputs on the device in `dtype`; params, and an LSTM's cell state, stay at least float32."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    keep = 2 if subject.params is None else subject.params
    dtypes = [wide if index == keep else dtype for index in range(len(subject.inputs))]
    return leaves([tensor.to(DEVICE) for tensor in subject.inputs], dtypes)


def weights_for(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Random weights, one for each output, which stand for the gradients that come from outside."""
    with torch.no_grad():
        outputs = function(*inputs)
    return [torch.randn_like(output) for output in as_list(outputs)]


@contextmanager
def kernels(precision: str = "float32"):
    with fastdraw.backend(BACKEND), matmul_precision("high" if precision == "tf32" else "highest"):
        yield


def nudge(params: Tensor, dtype: torch.dtype) -> Tensor:
    """params moved by four roundings of the arithmetic's dtype, the least that any kernel can be asked to bear."""
    step = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * (1 + params.abs())
    return (params + step * torch.randn_like(params).sign()).detach().requires_grad_()


def check(subject: Subject, precision: str) -> None:
    """Values and all gradients: no further from float64 than the reference in the same precision, but for the tolerance."""
    dtype = torch_dtype(precision)
    inputs = narrowed(subject, dtype)
    with kernels(precision):
        weights = weights_for(subject.operator, inputs)
        actual = differentiate(subject.operator, inputs, weights)
        naive = differentiate(subject.specification, inputs, weights)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact_weights = [weight.double() for weight in weights]
    exact = differentiate(subject.specification, exact_inputs, exact_weights)
    rivals = [naive]
    if subject.params is not None:
        for _ in range(4):
            nudged = [nudge(t, dtype) if index == subject.params else t for index, t in enumerate(exact_inputs)]
            rivals.append(differentiate(subject.specification, nudged, exact_weights))
    # tf32 keeps as many bits of an operand as float16 does.
    budget = torch.float16 if precision == "tf32" else dtype
    for index, (a, e) in enumerate(zip(actual, exact, strict=True)):
        allowed = max(error(rival[index], e) for rival in rivals)
        assert_errors_within_budget(f"result {index}", error(a, e), allowed, budget)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [*REAL, *GLIMPSES], ids=str)
@pytest.mark.parametrize("make", [read, write, filterbank])
def test_glimpses(make, shape, precision):
    check(make(*shape), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", CELLS, ids=str)
def test_lstm_step(shape, precision):
    check(lstm_step(*shape), precision)


@pytest.mark.parametrize("name", SUBJECTS)
def test_two_runs_give_the_same_bits(name):
    subject = SUBJECTS[name]()
    inputs = narrowed(subject, torch.float32)
    with kernels():
        weights = weights_for(subject.operator, inputs)
        first, second = (differentiate(subject.operator, inputs, weights) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", SUBJECTS)
def test_strided_and_expanded_inputs(name):
    subject = SUBJECTS[name]()
    plain = narrowed(subject, torch.float32)
    # The same values, every dimension reversed in memory.
    strided = [
        t.detach().permute(*range(t.dim() - 1, -1, -1)).contiguous().permute(*range(t.dim() - 1, -1, -1)) for t in plain
    ]
    strided = [tensor.requires_grad_() for tensor in strided]
    with kernels():
        weights = weights_for(subject.operator, plain)
        expected = differentiate(subject.operator, plain, weights)
        actual = differentiate(subject.operator, strided, weights)
        # The gradient of a sum arrives as one element, expanded.
        torch.autograd.grad(sum(output.sum() for output in as_list(subject.operator(*strided))), strided)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", SUBJECTS)
def test_nothing_waits_for_the_device(name):
    subject = SUBJECTS[name]()
    inputs = narrowed(subject, torch.float32)
    with kernels():
        weights = weights_for(subject.operator, inputs)
        differentiate(subject.operator, inputs, weights)
        with waiting_refused():
            differentiate(subject.operator, inputs, weights)


@contextmanager
def waiting_refused():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_graph_replays_on_new_inputs(name):
    subject, other = SUBJECTS[name](), SUBJECTS[name]()
    inputs, new = narrowed(subject, torch.float32), narrowed(other, torch.float32)
    with kernels():
        weights = weights_for(subject.operator, inputs)
        expected = differentiate(subject.operator, new, weights)
        graph, captured = capture(lambda: differentiate(subject.operator, inputs, weights))
    with torch.no_grad():
        for tensor, value in zip(inputs, new, strict=True):
            tensor.copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    for one, two in zip(captured, expected, strict=True):
        assert torch.equal(one, two)


def capture(function: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = function()
    return graph, results


def registered(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The operator as torch.library knows it, with arguments."""
    inputs = narrowed(SUBJECTS[name](), torch.float32)
    rest = {"read": (5,), "write": (28, 33), "filterbank": (5, 28, 33), "lstm_step": ()}[name]
    return getattr(torch.ops.fastdraw, name).default, (*inputs, *rest, BACKEND)


@pytest.mark.parametrize("name", SUBJECTS)
def test_registration(name):
    operator, arguments = registered(name)
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("name", SUBJECTS)
def test_compiled(name):
    subject = SUBJECTS[name]()
    inputs = narrowed(subject, torch.float32)

    def function(*tensors: Tensor) -> list[Tensor]:
        return [output + 1 for output in as_list(subject.operator(*(tensor * 2 for tensor in tensors)))]

    with kernels():
        weights = weights_for(function, inputs)
        expected = differentiate(function, inputs, weights)
        actual = differentiate(torch.compile(function, fullgraph=True), inputs, weights)
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_errors_within_budget(f"result {index}", error(one, other), 0.0, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    image, params = narrowed(read(8, 1, 28, 28, 5), dtype)
    x, hidden, c, *weights = narrowed(lstm_step(8, 40, 64), torch.float32)
    with kernels(), torch.autocast(DEVICE, dtype):
        assert fastdraw.read(image, params, 5).dtype == torch.float32
        assert fastdraw.write(image[..., :5, :5], params, (28, 28)).dtype == torch.float32
        h, c_new = fastdraw.lstm_step(x, (hidden, c), *weights)
    assert (h.dtype, c_new.dtype) == (dtype, torch.float32)


CONFIGS = {
    "mnist": fastdraw.DRAWConfig((1, 28, 28), 6, 256, 100, 2, 5),
    "svhn": fastdraw.DRAWConfig((3, 54, 54), 3, 800, 100, 12, 12),
    "no attention": fastdraw.DRAWConfig((1, 28, 28), 4, 256, 100, None, None),
    "read only": fastdraw.DRAWConfig((2, 9, 7), 3, 8, 4, 3, None),
}


def models(config: fastdraw.DRAWConfig) -> tuple[fastdraw.DRAW, reference.DRAW, reference.DRAW]:
    """fastdraw's, the reference's, and the reference's in float64, with the same weights."""
    model = fastdraw.DRAW.from_config(config).to(DEVICE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    naive, exact = (reference.DRAW.from_config(config).to(DEVICE) for _ in range(2))
    naive.load_state_dict(model.state_dict())
    exact.load_state_dict(model.state_dict())
    return model, naive, exact.double()


def batch(config: fastdraw.DRAWConfig, size: int = 32) -> tuple[Tensor, Tensor]:
    noise = torch.randn(config.glimpses, size, config.latent_size, device=DEVICE)
    return torch.rand(size, *config.image_shape, device=DEVICE), noise


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_draw(name, autocast):
    config = CONFIGS[name]
    model, naive, exact = models(config)
    x, noise = batch(config)

    def results(m: reference.DRAW) -> list[Tensor]:
        # The autocast region has to leave the float64 yardstick alone.
        wide = next(m.parameters()).dtype
        with torch.autocast(DEVICE, autocast, enabled=autocast is not None and wide == torch.float32):
            out = m(x.to(wide), noise.to(wide))
        return gradients(out, list(m.parameters()))

    with kernels():
        actual = results(model)
    yardstick = results(exact)
    rivals = [results(naive)]
    for _ in range(3 if autocast else 0):
        # Half precision rounds every weight, and gradients that nearly cancel show it.
        rounded = copy.deepcopy(exact)
        rounded.load_state_dict(rounded_weights(rounded.state_dict(), torch.finfo(autocast).eps / 2))
        rivals.append(results(rounded))
    for index, (a, e) in enumerate(zip(actual, yardstick, strict=True)):
        allowed = max(error(rival[index], e) for rival in rivals)
        assert_errors_within_budget(f"result {index}", error(a, e), allowed, autocast or torch.float32)


def test_draw_waits_for_nothing_and_gives_the_same_bits():
    config = CONFIGS["mnist"]
    model, _, _ = models(config)
    x, noise = batch(config)

    def step() -> list[Tensor]:
        return gradients(model(x, noise), list(model.parameters()))

    with kernels():
        first = step()
        with waiting_refused():
            second = step()
            model(x)
            model.sample(4)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_a_graph_holds_a_training_step():
    """Forward, backward, clipping and Adam in one graph: the weights after five replays are those after five plain steps."""
    config = CONFIGS["mnist"]
    plain, _, _ = models(config)
    captured = fastdraw.DRAW.from_config(config).to(DEVICE)
    captured.load_state_dict(plain.state_dict())
    x, noise = batch(config)

    def stepper(model: fastdraw.DRAW) -> Callable[[], list[Tensor]]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=True)

        def step() -> list[Tensor]:
            optimizer.zero_grad(set_to_none=False)
            loss = model(x, noise).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            return [loss.detach()]

        return step

    with kernels():
        step = stepper(plain)
        for _ in range(6):
            loss = step()[0]
        # Capturing takes one plain step itself, to warm up.
        graph, (captured_loss,) = capture(stepper(captured))
        for _ in range(5):
            graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(loss, captured_loss)
    for one, other in zip(plain.parameters(), captured.parameters(), strict=True):
        assert torch.equal(one, other)
