"""What reaches a kernel is what it is taken for: other sizes, dtypes, devices and released memory compute or are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from fuzz import Recorder
from shapes import LSTM
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import fastdraw
from fastdraw import DRAW, DRAWClassifier, reference
from fastdraw.kernels import cpu

REFUSALS = (ValueError, TypeError)


def draw(**changes) -> DRAW:
    sizes = {"glimpses": 4, "hidden_size": 16, "latent_size": 5, "read_size": 3, "write_size": 4, **changes}
    return DRAW((1, 12, 12), **sizes)


def classifier() -> DRAWClassifier:
    return DRAWClassifier((1, 20, 20), glimpses=3, hidden_size=16, read_size=4, num_classes=7)


def loss(model: nn.Module) -> Tensor:
    if isinstance(model, DRAWClassifier):
        return model(torch.rand(3, 1, 20, 20), torch.tensor([1, 2, 3])).loss
    labels = None if model.config.num_classes is None else torch.tensor([0, 1, 1])
    return model(torch.rand(3, 1, 12, 12), torch.randn(4, 3, 5), labels=labels).loss


MODELS: dict[str, Callable[[], nn.Module]] = {
    "draw": draw,
    "conditional": lambda: draw(num_classes=2),
    "without attention": lambda: draw(read_size=None, write_size=None),
    "classifier": classifier,
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_half_precision_weights_compute_with_states_in_float32(backend: str, name: str, dtype: torch.dtype) -> None:
    model = MODELS[name]()
    rounded = {key: value.to(dtype) for key, value in model.state_dict().items()}
    model.load_state_dict({key: value.float() for key, value in rounded.items()})
    torch.manual_seed(1)
    expected = loss(model)
    grads = torch.autograd.grad(expected, list(model.parameters()))
    model.load_state_dict(rounded, assign=True)
    torch.manual_seed(1)
    actual = loss(model)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)
    for parameter, grad, exact in zip(
        model.parameters(), torch.autograd.grad(actual, list(model.parameters())), grads, strict=True
    ):
        assert grad.dtype == parameter.dtype == dtype
        assert (grad.float() - exact).norm() <= 0.1 * exact.norm() + 1e-3


def test_weights_of_several_dtypes_compute_in_the_widest(backend: str) -> None:
    for name in ("initial_canvas", "initial_decoder", "decoder.weight_hh"):
        model = draw()
        torch.manual_seed(1)
        expected = loss(model)
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.bfloat16()
        torch.manual_seed(1)
        torch.testing.assert_close(loss(model), expected, rtol=1e-2, atol=1e-2)


def test_half_precision_samples_and_attends(backend: str) -> None:
    assert draw().bfloat16().sample(2).isfinite().all()
    logits, window = classifier().bfloat16().attend(torch.rand(2, 1, 20, 20))
    assert logits.isfinite().all()
    assert window.sigma.shape == (3, 2)


def resized(tensor: Tensor) -> list[Tensor]:
    """Of other sizes, or nothing: each dimension one larger, one smaller, empty, gone, and one more."""
    shapes = [(), (0,), (*tensor.shape, 1), (1, *tensor.shape)]
    for dim, length in enumerate(tensor.shape):
        shapes += [(*tensor.shape[:dim], n, *tensor.shape[dim + 1 :]) for n in (length + 1, length - 1, 2 * length + 40)]
    return [torch.rand(shape) for shape in shapes if shape != tensor.shape]


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_of_another_size_is_refused_by_name(backend: str, name: str) -> None:
    for path, parameter in MODELS[name]().named_parameters():
        for other in resized(parameter):
            model = MODELS[name]()
            model.get_parameter(path).data = other
            with pytest.raises(REFUSALS, match=rf"{path}: expected a tensor of shape"):
                loss(model)


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_elsewhere_is_refused(backend: str, name: str) -> None:
    for path, parameter in MODELS[name]().named_parameters():
        for change in ("meta", "released", "cut"):
            model = MODELS[name]()
            owner, _, attribute = path.rpartition(".")
            mine = model.get_parameter(path)
            if change == "meta":
                setattr(model.get_submodule(owner), attribute, nn.Parameter(parameter.to("meta")))
            else:
                mine.untyped_storage().resize_(0 if change == "released" else mine.nbytes - 1)
            with pytest.raises(REFUSALS, match="expected"):
                loss(model)


def test_layers_of_any_strides_compute(backend: str) -> None:
    for path, parameter in draw().named_parameters():
        if parameter.dim() == 2:
            model = draw()
            torch.manual_seed(1)
            expected = loss(model)
            mine = model.get_parameter(path)
            mine.data = mine.data.t().contiguous().t()
            torch.manual_seed(1)
            torch.testing.assert_close(loss(model), expected)


def released(*sizes: int, view: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
    tensor = view(torch.rand(sizes))
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize("side", [6, 70])
def test_released_memory_is_refused(backend: str, side: int) -> None:
    image, params, patch = torch.rand(2, 1, side, side), torch.zeros(2, 5), torch.rand(2, 1, 3, 3)
    lstm = [torch.rand(size) for size in LSTM]
    calls = [
        ("image", lambda: fastdraw.read(released(2, 1, side, side), params, 3)),
        ("image", lambda: fastdraw.read(released(2, 1, side, side, view=lambda t: t.mT), params, 3)),
        ("image", lambda: fastdraw.read(released(2, 1, side, side + 9, view=lambda t: t[..., 9:]), params, 3)),
        ("params", lambda: fastdraw.read(image, released(2, 5), 3)),
        ("params", lambda: fastdraw.read(image, released(2, 2, 5), 3)),
        ("params", lambda: fastdraw.read(image.requires_grad_(), released(2, 5).requires_grad_(), 3)),
        ("patch", lambda: fastdraw.write(released(2, 1, 3, 3), params, (side, side))),
        ("params", lambda: fastdraw.write(patch, released(2, 5), (side, side))),
        ("params", lambda: fastdraw.filterbank(released(2, 5), 3, (side, side))),
        ("x", lambda: draw()(released(2, 1, 12, 12))),
        ("noise", lambda: draw()(torch.rand(2, 1, 12, 12), released(4, 2, 5))),
        *(
            (name, lambda i=i: fastdraw.lstm_step(*(lambda t: (t[0], (t[1], t[2]), *t[3:]))(
                [released(*t.shape) if j == i else t for j, t in enumerate(lstm)]
            )))
            for i, name in enumerate(("x", "h", "c", "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        ),
    ]  # fmt: skip
    for name, call in calls:
        with pytest.raises(ValueError, match=f"{name}: expected"):
            call()


@pytest.mark.parametrize("autocast", [False, True])
def test_released_memory_is_refused_before_it_is_converted(backend: str, autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    lstm = [torch.rand(size).to(dtype) for size in LSTM]
    half = [torch.rand(2, 1, 6, 6).half(), torch.zeros(2, 5).half()]
    x, noise, image = torch.rand(2, 1, 20, 20).double(), torch.rand(4, 2, 5).double(), torch.rand(2, 1, 12, 12).half()
    calls: list[tuple[Tensor, Callable[[], object]]] = [
        *((tensor, lambda: fastdraw.lstm_step(lstm[0], (lstm[1], lstm[2]), *lstm[3:])) for tensor in lstm),
        *((tensor, lambda: fastdraw.read(*half, 3)) for tensor in half),
        (x, lambda: classifier().attend(x)),
        (noise, lambda: draw()(torch.rand(2, 1, 12, 12), noise)),
        (image, lambda: draw().recurrence(image, torch.randn(4, 2, 5))),
    ]
    for tensor, call in calls:
        whole = tensor.untyped_storage().nbytes()
        tensor.untyped_storage().resize_(whole - 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), pytest.raises(ValueError, match=r"expected .* bytes"):
            call()
        tensor.untyped_storage().resize_(whole)


def test_memory_released_before_the_backward_pass_is_refused(backend: str) -> None:
    for side in (6, 70):
        image, params = torch.rand(2, 1, side, side), torch.zeros(2, 5, requires_grad=True)
        patch = fastdraw.read(image, params, 3)
        image.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"image: expected .* bytes of memory"):
            patch.sum().backward()


#: Of each registered operator, the arguments that may have another size, number or dtype, whatever the others are.
FREE = {
    "read": {"image", "rows", "columns"},
    "write": {"patch", "height", "width"},
    "filterbank": {"params", "rows", "columns", "height", "width"},
    "recurrence": {"noise", "canvas", "dtype"},
    "classification": {"x", "glimpses", "dtype"},
    "read_backward": {"grad", "image"},
    "write_backward": {"grad", "patch"},
    "filterbank_backward": {"grad_y", "grad_x"},
    "classification_backward": {"x"},
}


def test_operators_called_directly_refuse_what_does_not_fit(backend: str) -> None:
    """Every argument of every call, one at a time, in every other form: a sentence, or what the form itself asks for."""
    image, params, patch = torch.rand(2, 1, 6, 5), torch.zeros(2, 5), torch.rand(2, 1, 3, 3)
    x, h, c, *weights = leaves = [torch.rand(size) for size in LSTM]
    for leaf in (image, params, patch, *leaves):
        leaf.requires_grad_()
    with Recorder() as recorder:
        fastdraw.read(image, params, 3).sum().backward()
        fastdraw.write(patch, params, (6, 5)).sum().backward()
        sum(tensor.sum() for tensor in fastdraw.filterbank(params, 3, (6, 5))).backward()
        sum(tensor.sum() for tensor in fastdraw.lstm_step(x, (h, c), *weights)).backward()
        draw(num_classes=3)(torch.rand(2, 1, 12, 12), labels=torch.tensor([0, 2])).loss.backward()
        draw().sample(2)
        classifier()(torch.rand(2, 1, 20, 20), torch.tensor([0, 1])).loss.backward()
    computed: dict[str, set[str]] = {}
    said: set[str] = set()
    with torch.no_grad():
        for func, arguments in recorder.calls:
            arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)
            func(*arguments)
            for i, argument in enumerate(arguments):
                for other in others_than(argument):
                    try:
                        func(*arguments[:i], other, *arguments[i + 1 :])
                    except (ValueError, TypeError, RuntimeError) as error:
                        said.add(str(error))
                    else:
                        computed.setdefault(func._opname, set()).add(func._schema.arguments[i].name)
    names = {func._opname for func, _ in recorder.calls}
    assert names == FREE.keys() | {"lstm_step", "lstm_step_backward", "recurrence_backward"}
    assert computed == FREE
    assert not [text for text in said if not re.search("expected|allocate|missing", text)]


def others_than(argument: Any) -> list[Any]:
    if isinstance(argument, Tensor):
        return [
            *resized(argument),
            argument.int(),
            argument.to(torch.complex64),
            released(*argument.shape),
            argument.to("meta"),
            None,
        ]
    if isinstance(argument, torch.dtype):
        return [torch.float64, torch.bfloat16, torch.int32, torch.float8_e4m3fn]
    if argument is None:
        return [torch.rand(1), torch.rand(5, 8)]
    whole = isinstance(argument, int) and not isinstance(argument, bool)
    return [0, -1, argument + 1, -(2**62), 2**40] if whole else []


def test_what_autograd_kept_may_come_back_as_something_else(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks that store activations with a loss, or give nonsense: computed, or refused, and never read past the end."""
    monkeypatch.setattr(cpu, "LEAST_SEEN", 0)
    nonsense: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.bfloat16(),
        lambda t: t.double(),
        lambda t: t.bfloat16().to(t.dtype) if t.is_floating_point() else t,
        lambda t: t.flatten()[:1],
        lambda t: t[:0],
        lambda t: t.repeat_interleave(2, -1),
        lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
        lambda t: t.unsqueeze(0),
        lambda t: t.to("meta"),
        lambda t: released(*t.shape),
    ]
    lstm = [torch.rand(size, requires_grad=True) for size in LSTM]
    params = torch.tensor([[0.0, 0.0, 6.0, -1.0, 0.0]] * 2).requires_grad_()
    # Sums save nothing, so that hooks see what fastdraw saves alone.
    calls: list[Callable[[], Tensor]] = [
        *(lambda side=side: fastdraw.read(torch.rand(2, 1, side, side), params, 3).sum() for side in (8, 150)),
        *(lambda side=side: fastdraw.write(torch.rand(2, 1, 3, 3), params, (side, side)).sum() for side in (8, 70)),
        lambda: fastdraw.filterbank(params, 3, (6, 5)).y.sum(),
        lambda: fastdraw.lstm_step(lstm[0], (lstm[1], lstm[2]), *lstm[3:])[0].sum(),
        lambda: draw().recurrence(torch.rand(3, 1, 12, 12), torch.randn(4, 3, 5)).canvas.sum(),
        lambda: draw(canvas_memory="rebuild").recurrence(torch.rand(3, 1, 12, 12), torch.randn(4, 3, 5)).canvas.sum(),
        lambda: classifier().recurrence(torch.rand(3, 1, 20, 20))[0].sum(),
    ]
    for change in nonsense:
        for call in calls:
            with saved_tensors_hooks(lambda t: t, change):
                out = call()
            with suppress(*REFUSALS, RuntimeError):
                out.backward()


def test_what_a_read_kept_is_for_its_windows_alone(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "LEAST_SEEN", 0)
    image, params = torch.rand(1, 1, 400, 400), torch.tensor([[0.0, 0.0, 2.0, -3.0, 0.0]], requires_grad=True)
    other = torch.tensor([[0.1, 0.0, 4.0, -1.0, 0.0]])
    window = params * 1
    patch = fastdraw.read(image, window, 5)
    window.data.copy_(other)
    (actual,) = torch.autograd.grad(patch.sum(), params)
    other.requires_grad_()
    (expected,) = torch.autograd.grad(fastdraw.read(image, other, 5).sum(), other)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 5000), (2, 3, 1, 5000), (2, 3, 5000, 1), (1, 2, 70, 70), (3, 1, 70, 70), (1, 1, 1, 4500)]
)
def test_strides_of_dimensions_of_size_one_mean_nothing(backend: str, shape: tuple[int, ...]) -> None:
    plain, params = torch.rand(shape), 0.3 * torch.randn(shape[0], 5)
    for odd in (0, 1, 7, 10**12):
        strides = [odd if n == 1 else stride for n, stride in zip(shape, plain.stride(), strict=True)]
        image = torch.as_strided(plain, shape, strides).requires_grad_()
        exact = plain.double().requires_grad_()
        leaves = params.clone().requires_grad_(), params.double().requires_grad_()
        fastdraw.read(image, leaves[0], 3).square().sum().backward()
        reference.read(exact, leaves[1], 3).square().sum().backward()
        torch.testing.assert_close(image.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(leaves[0].grad.double(), leaves[1].grad, rtol=1e-3, atol=1e-3)
        patch = torch.rand(shape[0], shape[1], 3, 3).requires_grad_()
        grad = torch.as_strided(plain, shape, strides)
        (got,) = torch.autograd.grad(fastdraw.write(patch, params, shape[2:]), patch, grad)
        torch.testing.assert_close(got, torch.autograd.grad(reference.write(patch, params, shape[2:]), patch, plain)[0])
