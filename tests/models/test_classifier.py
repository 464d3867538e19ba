"""fastdraw.DRAWClassifier against the reference, and in every place where a module of PyTorch is put."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_classifier import SMALL, inputs, pair, results
from torch import Tensor

import fastdraw
from fastdraw import ClassifierConfig, DRAWClassifier, reference
from fastdraw.testing import TOLERANCE, error


@pytest.mark.parametrize("changes", [{}, {"read_size": 1}, {"glimpses": 1}, {"num_classes": 1}, {"read_size": 12}], ids=str)
def test_outputs_gradients_and_windows_are_the_references(backend: str, changes: dict[str, int]) -> None:
    model, other = pair(**changes)
    x, labels = inputs(model)
    ours, theirs = results(model, x, labels), results(other, x, labels)
    for name, exact in theirs.items():
        torch.testing.assert_close(ours[name], exact, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    logits, windows = model.attend(x)
    expected_logits, expected = other.attend(x)
    torch.testing.assert_close(logits, expected_logits)
    assert windows.centre_x.shape == (model.config.glimpses, 3)
    torch.testing.assert_close(tuple(windows), tuple(expected))
    assert torch.equal(model.predict(x), other.predict(x))
    assert torch.equal(model.predict(x), ours["logits"].argmax(1))
    assert model(x).loss is None


def test_float32_is_within_budget(backend: str) -> None:
    exact_model, _ = pair(torch.float64, std=0.15, image_shape=(1, 30, 23), glimpses=8, hidden_size=32, read_size=6)
    model, naive = (kind.from_config(exact_model.config) for kind in (DRAWClassifier, reference.DRAWClassifier))
    for other in (model, naive):
        other.load_state_dict(exact_model.state_dict())
    exact_model.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    x, labels = inputs(model, batch=5)
    exact = results(exact_model, x.double(), labels)
    ours, theirs = ({n: error(v, exact[n]) for n, v in results(m, x, labels).items()} for m in (model, naive))
    # One tensor's naive error is one draw of how glimpses amplify rounding; the worst of all of them is the budget.
    budget = max(theirs.values()) + TOLERANCE[torch.float32]
    assert max(theirs.values()) < 1e-3, "the case itself is too ill-conditioned to tell anything"
    assert all(got <= budget for got in ours.values()), ours


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image_shape=st.tuples(st.integers(1, 3), st.integers(1, 17), st.integers(1, 17)),
    glimpses=st.integers(1, 4),
    hidden_size=st.integers(1, 20),
    read_size=st.integers(1, 9),
    num_classes=st.integers(1, 6),
    batch=st.integers(0, 4),
)
def test_any_configuration(backend: str, batch: int, **configuration) -> None:
    model, other = pair(**configuration)
    x, _ = inputs(model, batch)
    assert model.predict(x).shape == (batch,)
    assert model.attend(x)[1].sigma.shape == (configuration["glimpses"], batch)
    for m in (model, other):
        m.zero_grad()
        # Of no images the mean loss is no number; a weighted sum of logits has gradients all the same.
        (m(x).logits * torch.linspace(-1, 1, configuration["num_classes"], dtype=x.dtype)).sum().backward()
    torch.testing.assert_close(model(x).logits, other(x).logits)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_gradcheck() -> None:
    """In float64 on the plain pieces: finite differences know nothing of the reference."""
    model, _ = pair(image_shape=(2, 4, 3), glimpses=2, hidden_size=3, read_size=2, num_classes=2)
    x, _ = inputs(model, 2)
    names = [name for name, _ in model.named_parameters()]

    def logits(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,)).logits

    tensors = (x * 0.8 + 0.1, *(p.detach() for p in model.parameters()))
    with fastdraw.backend("aten"):
        assert torch.autograd.gradcheck(logits, tuple(t.requires_grad_() for t in tensors), fast_mode=True)


def test_images_get_a_gradient_only_where_it_is_wanted(backend: str) -> None:
    model, _ = pair()
    x, labels = inputs(model)
    model.requires_grad_(False)
    assert not model(x, labels).loss.requires_grad
    leaf = x.clone().requires_grad_()
    model(leaf, labels).loss.backward()
    assert leaf.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_twice_and_the_graph_can_be_walked_twice(backend: str, dtype: torch.dtype) -> None:
    model, _ = pair(dtype)
    x, labels = inputs(model)
    first, second = results(model, x, labels), results(model, x, labels)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    loss = model(x, labels).loss
    walks = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*walks, strict=True))


def test_inference_mode_and_checkpointing(backend: str) -> None:
    model, _ = pair()
    x, labels = inputs(model)
    expected = results(model, x, labels)
    with torch.inference_mode():
        torch.testing.assert_close(model(x, labels).loss, expected["loss"].detach())
        assert torch.equal(model.predict(x), expected["logits"].argmax(1))
    torch.utils.checkpoint.checkpoint(lambda x: model(x, labels).loss, x, use_reentrant=False).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_strided_images(backend: str) -> None:
    model, _ = pair()
    x, _ = inputs(model)
    strided = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not strided.is_contiguous()
    assert torch.equal(model(x).logits, model(strided).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(backend: str, dtype: torch.dtype) -> None:
    model, other = pair(torch.float32)
    x, labels = inputs(model)
    exact = results(copy.deepcopy(other).double(), x.double(), labels)
    with torch.autocast("cpu", dtype):
        ours, theirs = results(model, x, labels), results(other, x, labels)
        out = model(x, labels)
        assert torch.equal(model.attend(x)[0], out.logits)
    assert out.logits.dtype == out.loss.dtype == torch.float32
    # Half precision rounds every weight: the worst of all results is the budget, as with long sequences.
    naive = max(error(theirs[name], value) for name, value in exact.items())
    for name, value in exact.items():
        assert error(ours[name], value) <= naive + TOLERANCE[dtype], name
    outside = torch.autograd.grad(out.loss, list(model.parameters()))
    assert all(torch.equal(one, ours[n]) for (n, _), one in zip(model.named_parameters(), outside, strict=True))


def test_double_backward_is_refused(backend: str) -> None:
    model, _ = pair(torch.float32)
    x, labels = inputs(model)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(model(x, labels).loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"fastdraw.DRAWClassifier cannot be differentiated twice"):
        grad.square().sum().backward()
    with fastdraw.backend("reference"):
        (grad,) = torch.autograd.grad(model(x, labels).loss, x, create_graph=True)
        grad.square().sum().backward()


def weights(model: DRAWClassifier) -> list[Tensor]:
    """In the operator's order."""
    cell, attention, output = model.lstm, model.read_attention, model.output
    lstm = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
    tensors = (*lstm, attention.weight, attention.bias, output.weight, output.bias, model.initial_hidden)
    return [tensor.detach().requires_grad_() for tensor in tensors]


def test_opcheck(backend: str) -> None:
    model, _ = pair(torch.float32)
    x, _ = inputs(model)
    for leaf in (x, x.clone().requires_grad_()):
        arguments = (leaf, *weights(model), 3, 3, torch.float32, True, backend)
        torch.library.opcheck(torch.ops.fastdraw.classification.default, arguments)


def test_without_gradients_memory_does_not_grow_with_glimpses(backend: str) -> None:
    sizes = []
    for steps in (5, 50):
        model, _ = pair(torch.float32, glimpses=steps)
        outputs = torch.ops.fastdraw.classification(inputs(model)[0], *weights(model), steps, 3, torch.float32, False, backend)
        sizes.append(sum(tensor.numel() for tensor in outputs))
    assert sizes[0] == sizes[1]


def test_torch_compile_without_a_graph_break(backend: str) -> None:
    model, _ = pair(torch.float32)
    x, labels = inputs(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(x, labels).loss.backward()
    expected = results(model, x, labels)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    torch.testing.assert_close(compiled(x).logits, expected["logits"])


def test_state_dict_is_as_documented_and_makes_the_round_trip() -> None:
    model, _ = pair(torch.float32, image_shape=(3, 8, 9), hidden_size=16, read_size=4)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        "lstm.weight_ih": (64, 48),
        "lstm.weight_hh": (64, 16),
        "lstm.bias_ih": (64,),
        "lstm.bias_hh": (64,),
        "read_attention.weight": (5, 16),
        "read_attention.bias": (5,),
        "output.weight": (5, 16),
        "output.bias": (5,),
        "initial_hidden": (16,),
    }
    x, _ = inputs(model)
    loaded = DRAWClassifier.from_config(ClassifierConfig(**model.config.to_dict()))
    loaded.load_state_dict(model.state_dict())
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x).logits, model(x).logits)
    assert set(vars(model)) == set(vars(DRAWClassifier(**SMALL))), "state was kept on the module between calls"
    with pytest.raises(ValueError, match=r"state_dict: expected initial_hidden of shape \(8,\) for .*, got \(16,\)"):
        DRAWClassifier(**SMALL).load_state_dict(model.state_dict())


def test_a_new_models_first_window_spans_the_image() -> None:
    model = DRAWClassifier((1, 60, 50), read_size=12)
    _, windows = model.attend(torch.rand(2, 1, 60, 50))
    first = [float(field[0, 0].detach()) for field in windows]
    assert first == pytest.approx([24.5, 29.5, 59 / 11, 59 / 22, 1.0])
    # One filter sees half the image to either side; filters closer than a pixel are not made narrower than that.
    for size, sigma in ((1, 3.5), (30, 0.5)):
        windows = DRAWClassifier((1, 5, 7), read_size=size).attend(torch.rand(2, 1, 5, 7))[1]
        assert windows.sigma[0].tolist() == pytest.approx([sigma, sigma])


def test_presets_are_the_papers() -> None:
    assert fastdraw.classifier_presets["cluttered-mnist"] == ClassifierConfig((1, 100, 100), 8, 256, 12, 10)
    assert fastdraw.classifier_presets["cluttered-mnist-60"] == ClassifierConfig((1, 60, 60), 8, 256, 12, 10)
    assert DRAWClassifier().config == fastdraw.classifier_presets["cluttered-mnist"]
    assert DRAWClassifier.from_config(ClassifierConfig((1, 6, 5), 2, 4, 3, 7)).output.weight.shape == (7, 4)
