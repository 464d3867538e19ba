"""The whole recurrence as one operator: gradients by finite differences and by the reference, memory, registration."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_draw import SMALL, gradients, inputs, pair
from torch import Tensor

import fastdraw
from fastdraw import DRAW, dispatch, reference
from fastdraw.ops import glimpses


@pytest.mark.parametrize("sizes", [(2, 3), (None, 2), (2, None)])
def test_gradcheck(sizes: tuple) -> None:
    """In float64 on the plain pieces: finite differences know nothing of the reference."""
    model, _ = pair(image_shape=(1, 4, 3), glimpses=2, hidden_size=3, latent_size=2, read_size=sizes[0], write_size=sizes[1])
    x, noise = inputs(model, 2)
    names = [name for name, _ in model.named_parameters()]

    def outputs(x: Tensor, noise: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        out = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x, noise))
        return out.canvas, out.kl

    tensors = (x * 0.8 + 0.1, noise, *(p.detach() for p in model.parameters()))
    with fastdraw.backend("aten"):
        assert torch.autograd.gradcheck(outputs, tuple(t.requires_grad_() for t in tensors), fast_mode=True)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image_shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    glimpses=st.integers(1, 5),
    hidden_size=st.integers(1, 20),
    latent_size=st.integers(1, 9),
    read_size=st.none() | st.integers(1, 5),
    write_size=st.none() | st.integers(1, 5),
    canvas_memory=st.sampled_from(["keep", "rebuild"]),
    batch=st.integers(1, 4),
)
def test_gradients_of_any_configuration(backend: str, batch: int, **configuration) -> None:
    model, other = pair(**configuration)
    x, noise = inputs(model, batch)
    for ours, theirs in zip(gradients(model, x, noise), gradients(other, x, noise), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rows", [1, 6, 7, 1000])
def test_weights_gradients_do_not_depend_on_the_chunk(backend: str, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A glimpse a chunk, chunks that divide T and that do not, one chunk."""
    model, other = pair(**{**SMALL, "glimpses": 5})
    x, noise = inputs(model)
    monkeypatch.setattr(dispatch.pieces(backend, "cpu"), "chunk_rows", lambda s, dtype: rows)
    for ours, theirs in zip(gradients(model, x, noise), gradients(other, x, noise), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_rebuilt_canvases_give_the_same_gradients_in_float32(backend: str) -> None:
    kept, _ = pair(torch.float32, **SMALL)
    rebuilt = DRAW(**SMALL, canvas_memory="rebuild")
    rebuilt.load_state_dict(kept.state_dict())
    x, noise = inputs(kept)
    for one, other in zip(gradients(kept, x, noise), gradients(rebuilt, x, noise), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_sampler_has_gradients_too(backend: str) -> None:
    model, other = pair(**SMALL)
    _, noise = inputs(model)
    results = []
    for m in (model, other):
        leaf = noise.clone().requires_grad_()
        m.sample(3, leaf).square().sum().backward()
        results.append([leaf.grad, *(p.grad for p in m.parameters())])
    names = ["noise", *(name for name, _ in model.named_parameters())]
    for name, ours, theirs in zip(names, *results, strict=True):
        if theirs is None:
            # What does not take part in sampling has no gradient in the reference, and a zero one here.
            assert ours is None or not ours.any(), name
        else:
            torch.testing.assert_close(ours, theirs)


def test_gradients_of_kl_and_canvas_alone(backend: str) -> None:
    model, other = pair(**SMALL)
    x, noise = inputs(model)
    for name in ("canvas", "kl"):
        grads = []
        for m in (model, other):
            leaf = x.clone().requires_grad_()
            out = getattr(m(leaf, noise), name)
            (grad,) = torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), leaf)
            grads.append(grad)
        torch.testing.assert_close(*grads)


def test_same_bits_twice(backend: str) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    for one, other in zip(gradients(model, x, noise), gradients(model, x, noise), strict=True):
        assert torch.equal(one, other)


def test_the_graph_can_be_walked_twice(backend: str) -> None:
    """Nothing that the backward pass reads is overwritten by it."""
    model, _ = pair(torch.float32, **SMALL)
    out = model(*inputs(model))
    parameters = list(model.parameters())
    first = torch.autograd.grad(out.loss, parameters, retain_graph=True)
    second = torch.autograd.grad(out.loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_backward_inside_autocast(backend: str) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(model(x, noise).loss, list(model.parameters()))
        out = model(x, noise)
    outside = torch.autograd.grad(out.loss, list(model.parameters()))
    for one, other in zip(inside, outside, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_double_backward_is_refused(backend: str) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(model(x, noise).loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"fastdraw.DRAW cannot be differentiated twice"):
        grad.square().sum().backward()
    with fastdraw.backend("reference"):
        (grad,) = torch.autograd.grad(model(x, noise).loss, x, create_graph=True)
        grad.square().sum().backward()


def leaves(model: reference.DRAW, infers: bool) -> list[torch.Tensor | None]:
    layers = fastdraw.ops.recurrence._layers(model, infers)
    return [None if layer is None else layer.detach().requires_grad_() for layer in layers]


def test_opcheck(backend: str) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    weights = leaves(model, infers=True)
    for images in (x, None):
        if images is None:
            weights = leaves(model, infers=False)
        arguments = (images, noise, None, *weights, 2, 5, torch.float32, True, True, backend)
        torch.library.opcheck(torch.ops.fastdraw.recurrence.default, arguments)


def test_without_gradients_memory_does_not_grow_with_glimpses(backend: str) -> None:
    """Two slots serve all glimpses: the tape of 50 is as large as the tape of 5, but for KL, mu and log sigma."""
    sizes = []
    for steps in (5, 50):
        model = reference.DRAW(**{**SMALL, "glimpses": steps})
        x, noise = inputs(model)
        arguments = (x, noise, None, *fastdraw.ops.recurrence._layers(model, True), 2, 5, torch.float32, False, False, backend)
        tape = glimpses.Tape(*torch.ops.fastdraw.recurrence(*arguments))
        sizes.append(sum(tensor.numel() for name, tensor in tape._asdict().items() if name not in ("kl", "latent")))
    assert sizes[0] == sizes[1]
