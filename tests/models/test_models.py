"""Models of each kind against the reference, on every backend, and in every place where a module of PyTorch is put."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from fuzz import Recorder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import KINDS, converted, inputs, made, pair, results
from torch import Tensor

import fastdraw
from fastdraw import dispatch, reference
from fastdraw.ops import glimpses
from fastdraw.testing import TOLERANCE, error

REBUILD = {"canvas_memory": "rebuild"}
#: A kind of model, and changes to its sizes.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("draw", {"read_size": 2, "write_size": 3}),
    ("draw", {"read_size": None, "write_size": 3, **REBUILD}),
    ("draw", {"read_size": 2, "write_size": None, **REBUILD}),
    ("draw", {"read_size": None, "write_size": None}),
    ("draw", {"read_size": 1, "write_size": 1}),
    ("conditional", {"read_size": 2, "write_size": 5, **REBUILD}),
    ("conditional", {"read_size": None, "write_size": 3}),
    ("conditional", {"read_size": 4, "write_size": None, **REBUILD}),
    *(("classifier", change) for change in ({}, {"read_size": 1}, {"glimpses": 1}, {"num_classes": 1}, {"read_size": 12})),
]


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    for name, exact in theirs.items():
        torch.testing.assert_close(
            ours[name], exact, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=str)
def test_outputs_gradients_and_windows_are_the_references(backend: str, kind: str, changes: dict[str, Any]) -> None:
    model, other = pair(kind, **changes)
    batch = inputs(model)
    assert_close(results(model, batch), results(other, batch), 1e-9)
    if kind == "classifier":
        (logits, windows), (theirs, expected) = model.attend(batch["x"]), other.attend(batch["x"])
        torch.testing.assert_close((logits, *windows), (theirs, *expected))
        assert windows.centre_x.shape == (model.config.glimpses, 3)
        assert torch.equal(model.predict(batch["x"]), theirs.argmax(1))
        assert model(batch["x"]).loss is None
        return
    for method, first in (("sample", {"n": 3}), ("reconstruct", {"x": batch["x"]})):
        arguments = {**batch, **first}
        if method == "sample":
            del arguments["x"]
        ours, trajectory = getattr(model, method)(**arguments, return_trajectory=True)
        images, expected = getattr(other, method)(**arguments, return_trajectory=True)
        torch.testing.assert_close(ours, images)
        torch.testing.assert_close(ours, getattr(model, method)(**arguments))
        torch.testing.assert_close(trajectory.canvases, expected.canvases)
        torch.testing.assert_close(torch.sigmoid(trajectory.canvases[-1]), ours)
        for windows, size in (("write_windows", "write_size"), ("read_windows", "read_size")):
            found, wanted = getattr(trajectory, windows), getattr(expected, windows)
            assert (found is None) == (getattr(model.config, size) is None or (method, size) == ("sample", "read_size"))
            if found is not None:
                assert found.sigma.shape == (3, 3)
                torch.testing.assert_close(tuple(found), tuple(wanted))


@pytest.mark.parametrize(
    ("kind", "changes", "batch"),
    [
        ("draw", {"image_shape": (1, 28, 28), "glimpses": 64, "hidden_size": 32, "latent_size": 10, "read_size": 2}, 4),
        ("conditional", {"read_size": None, "write_size": 3, **REBUILD}, 4),
        ("classifier", {"image_shape": (1, 30, 23), "glimpses": 8, "hidden_size": 32, "read_size": 6}, 5),
    ],
)
def test_float32_is_within_budget(backend: str, kind: str, changes: dict[str, Any], batch: int) -> None:
    """Of a long sequence, too."""
    torch.manual_seed(3)
    _, exact_model = pair(kind, torch.float64, std=0.15, **changes)
    model, naive = (made(package, kind, **changes) for package in (fastdraw, reference))
    for other in (model, naive):
        other.load_state_dict(exact_model.state_dict())
    exact_model.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    low = inputs(model, batch)
    exact = results(exact_model, converted(low, torch.float64))
    ours, theirs = ({n: error(v, exact[n]) for n, v in results(m, low).items()} for m in (model, naive))
    # One tensor's naive error is one draw of how glimpses amplify rounding; the worst of all of them is the budget.
    budget = max(theirs.values()) + TOLERANCE[torch.float32]
    assert max(theirs.values()) < 1e-3, "the case itself is too ill-conditioned to tell anything"
    assert all(got <= budget for got in ours.values()), ours


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)),
    image_shape=st.tuples(st.integers(1, 3), st.integers(1, 15), st.integers(1, 15)),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 9)),
    patches=st.tuples(st.none() | st.integers(1, 9), st.none() | st.integers(1, 6)),
    canvas_memory=st.sampled_from(["keep", "rebuild"]),
    num_classes=st.integers(1, 6),
    batch=st.integers(0, 4),
)
def test_any_configuration(backend: str, kind, image_shape, sizes, patches, canvas_memory, num_classes, batch) -> None:
    changes = {"image_shape": image_shape, "glimpses": sizes[0], "hidden_size": sizes[1], "read_size": patches[0]}
    if kind == "classifier":
        changes |= {"num_classes": num_classes, "read_size": patches[0] or 1}
    else:
        changes |= {"latent_size": sizes[2], "write_size": patches[1], "canvas_memory": canvas_memory}
        changes |= {"num_classes": num_classes} if kind == "conditional" else {}
    found = []
    for model in pair(kind, **changes):
        torch.manual_seed(0)
        given = {name: value.requires_grad_(value.is_floating_point()) for name, value in inputs(model, batch).items()}
        out = model(**given)
        # Of no images the mean loss is no number; a weighted sum of what it is made of has gradients all the same.
        tensors = [out.logits] if kind == "classifier" else [out.canvas, out.kl]
        sum((t * torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t)).sum() for t in tensors).backward()
        leaves = {**{name: leaf for name, leaf in given.items() if leaf.requires_grad}, **dict(model.named_parameters())}
        found.append({str(i): t for i, t in enumerate(tensors)} | {name: leaf.grad for name, leaf in leaves.items()})
    assert_close(*found, 1e-8)


SMALLEST: dict[str, dict[str, Any]] = {
    "draw": {"image_shape": (1, 4, 3), "glimpses": 2, "hidden_size": 3, "latent_size": 2},
    "classifier": {"image_shape": (2, 4, 3), "glimpses": 2, "hidden_size": 3, "read_size": 2, "num_classes": 2},
}


@pytest.mark.parametrize(
    ("kind", "patches"),
    [
        ("draw", {"read_size": 2, "write_size": 3}),
        ("draw", {"read_size": None, "write_size": 2}),
        ("draw", {"read_size": 2, "write_size": None}),
        ("classifier", {}),
    ],
)
def test_gradcheck(kind: str, patches: dict[str, int]) -> None:
    """In float64 on the plain pieces: finite differences know nothing of the reference."""
    model, _ = pair(kind, **SMALLEST[kind], **patches)
    given = {name: value for name, value in inputs(model, 2).items() if value.is_floating_point()}
    given["x"] = given["x"] * 0.8 + 0.1
    names = [name for name, _ in model.named_parameters()]

    def outputs(*values: Tensor) -> Any:
        weights = dict(zip(names, values[len(given) :], strict=True))
        out = torch.func.functional_call(model, weights, values[: len(given)])
        return out.logits if kind == "classifier" else (out.canvas, out.kl)

    tensors = (*given.values(), *(p.detach() for p in model.parameters()))
    with fastdraw.backend("aten"):
        assert torch.autograd.gradcheck(outputs, tuple(t.requires_grad_() for t in tensors), fast_mode=True)


@pytest.mark.parametrize("kind", ["draw", "classifier"])
def test_images_get_a_gradient_only_where_it_is_wanted(backend: str, kind: str) -> None:
    model, _ = pair(kind)
    given = inputs(model)
    model.requires_grad_(False)
    assert not model(**given).loss.requires_grad
    given["x"].requires_grad_()
    model(**given).loss.backward()
    assert given["x"].grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_twice_and_the_graph_can_be_walked_twice(backend: str, kind: str, dtype: torch.dtype) -> None:
    """Nothing that the backward pass reads is overwritten by it."""
    model, _ = pair(kind, dtype)
    given = inputs(model)
    first, second = results(model, given), results(model, given)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    loss = model(**given).loss
    walks = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*walks, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_inference_checkpointing_and_compiling(backend: str, kind: str) -> None:
    """Compiled without a graph break."""
    model, _ = pair(kind)
    given = inputs(model)
    expected = results(model, given)
    with torch.inference_mode():
        torch.testing.assert_close(model(**given).loss, expected["loss"].detach())
        model.predict(given["x"]) if kind == "classifier" else model.sample(2)

    def plain(**given: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(lambda: model(**given).loss, use_reentrant=False)

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for loss in (plain, lambda **given: compiled(**given).loss):
        model.zero_grad()
        loss(**given).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[f"gradient to {name}"])
    assert next(iter(compiled(given["x"], labels=given.get("labels")))).isfinite().all()


def test_strided_images(backend: str) -> None:
    model, _ = pair("classifier")
    x = inputs(model)["x"]
    strided = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not strided.is_contiguous()
    assert torch.equal(model(x).logits, model(strided).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast(backend: str, kind: str, dtype: torch.dtype) -> None:
    """Outputs and gradients in float32; the same bits of gradients inside and outside of it."""
    model, other = pair(kind, torch.float32)
    given = inputs(model)
    exact = results(copy.deepcopy(other).double(), converted(given, torch.float64))
    with torch.autocast("cpu", dtype):
        ours, theirs = results(model, given), results(other, given)
        out = model(**given)
        model.attend(given["x"]) if kind == "classifier" else model.sample(2)
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    # Half precision rounds every weight: the worst of all results is the budget, as with long sequences.
    naive = max(error(theirs[name], value) for name, value in exact.items())
    for name, value in exact.items():
        assert error(ours[name], value) <= naive + TOLERANCE[dtype], name
    outside = torch.autograd.grad(out.loss, list(model.parameters()))
    for (name, _), one in zip(model.named_parameters(), outside, strict=True):
        assert torch.equal(one, ours[f"gradient to {name}"])


@pytest.mark.parametrize("kind", ["draw", "classifier"])
def test_double_backward_is_refused(backend: str, kind: str) -> None:
    model, _ = pair(kind, torch.float32)
    given = inputs(model)
    given["x"].requires_grad_()
    (grad,) = torch.autograd.grad(model(**given).loss, given["x"], create_graph=True)
    with pytest.raises(RuntimeError, match=rf"fastdraw.{type(model).__name__} cannot be differentiated twice"):
        grad.square().sum().backward()
    with fastdraw.backend("reference"):
        (grad,) = torch.autograd.grad(model(**given).loss, given["x"], create_graph=True)
        grad.square().sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(backend: str, kind: str) -> None:
    """Of every operator that a model calls, with the arguments that it gives."""
    model, _ = pair(kind, torch.float32)
    given = inputs(model)
    with Recorder() as recorder:
        model(**given).loss.backward()
        if kind == "draw":
            model.sample(3, given["noise"].clone().requires_grad_()).sum().backward()
    names = [func._opname for func, _ in recorder.calls]
    assert names == ["classification", "classification_backward"] * (kind == "classifier") or len(names) == 2 + 2 * (
        kind == "draw"
    )
    for func, arguments in recorder.calls:
        wanted = not func._opname.endswith("backward")
        leaves = [
            a.detach().requires_grad_(wanted and a.is_floating_point()) if isinstance(a, Tensor) else a for a in arguments
        ]
        torch.library.opcheck(func, tuple(leaves))


@pytest.mark.parametrize("kind", ["draw", "classifier"])
def test_without_gradients_memory_does_not_grow_with_glimpses(backend: str, kind: str) -> None:
    """Two slots serve all glimpses: the tape of 50 is as large as the tape of 5, but for KL, mu and log sigma."""
    sizes = []
    for steps in (5, 50):
        model, _ = pair(kind, torch.float32, glimpses=steps)
        with torch.no_grad(), Recorder() as recorder:
            model(**inputs(model))
            ((func, arguments),) = recorder.calls
            outputs = func(*arguments)
        if kind == "draw":
            outputs = glimpses.Tape(*outputs)._replace(kl=torch.empty(0), latent=torch.empty(0))
        sizes.append(sum(tensor.numel() for tensor in outputs))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("rows", [1, 6, 7, 1000])
def test_weights_gradients_do_not_depend_on_the_chunk(backend: str, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A glimpse a chunk, chunks that divide T and that do not, one chunk."""
    model, other = pair(glimpses=5)
    given = inputs(model)
    monkeypatch.setattr(dispatch.pieces(backend, "cpu"), "chunk_rows", lambda s, dtype: rows)
    assert_close(results(model, given), results(other, given), 1e-9)


@pytest.mark.parametrize("kind", ["draw", "classifier"])
def test_copies_pickles_and_moves(kind: str) -> None:
    model, _ = pair(kind, torch.float32)
    given = inputs(model)
    expected = model(**given).loss
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    loaded = type(model).from_config(type(model.config)(**model.config.to_dict()))
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("cpu"), loaded):
        torch.testing.assert_close(other(**given).loss, expected, rtol=0, atol=0)
    assert set(vars(model)) == set(vars(made(fastdraw, kind))), "state was kept on the module between calls"
    with pytest.raises(ValueError, match=r"state_dict: expected initial_\w+ of shape \(8,\) for .*, got \(9,\)"):
        model.load_state_dict(made(fastdraw, kind, hidden_size=9).state_dict())
