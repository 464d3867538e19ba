"""Another number of glimpses for one call: what a model of that many glimpses with the same weights gives, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import KINDS, inputs, made

import fastdraw
from fastdraw import reference


def two(package: Any, kind: str, glimpses: int, **changes: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """A model of 3 glimpses, one of so many with its weights, and input for the second."""
    model, other = made(package, kind, **changes), made(package, kind, glimpses=glimpses, **changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other.load_state_dict(model.state_dict())
    return model, other, inputs(other)


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=False)


@pytest.mark.parametrize("package", [fastdraw, reference], ids=["fastdraw", "reference"])
@pytest.mark.parametrize("glimpses", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients(package: Any, kind: str, glimpses: int) -> None:
    for changes in [{}] if kind == "classifier" else [{}, {"canvas_memory": "rebuild", "write_size": None}]:
        model, other, given = two(package, kind, glimpses, **changes)
        one, expected = model(**given, glimpses=glimpses), other(**given)
        same(tuple(one), tuple(expected))
        one.loss.backward()
        expected.loss.backward()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            same(p.grad, q.grad)


@pytest.mark.parametrize("package", [fastdraw, reference], ids=["fastdraw", "reference"])
@pytest.mark.parametrize("kind", ["draw", "conditional"])
def test_samples_and_reconstructions(package: Any, kind: str) -> None:
    model, other, given = two(package, kind, 4)
    known = {name: value for name, value in given.items() if name != "x"}
    same(model.sample(3, **known, glimpses=4), other.sample(3, **known))
    for one, expected in (
        (model.sample(3, **known, return_trajectory=True, glimpses=4), other.sample(3, **known, return_trajectory=True)),
        (model.reconstruct(**given, return_trajectory=True, glimpses=4), other.reconstruct(**given, return_trajectory=True)),
    ):
        assert one[1].canvases.shape[0] == len(one[1].write_windows.centre_x) == 4
        same(one[0], expected[0])
        same(one[1].canvases, expected[1].canvases)
        same(tuple(one[1].write_windows), tuple(expected[1].write_windows))
    drawn = [
        m.sample(2, generator=torch.Generator().manual_seed(3), **more) for m, more in ((model, {"glimpses": 4}), (other, {}))
    ]
    same(*drawn)
    assert model.sample(2, glimpses=6, return_trajectory=True)[1].canvases.shape[0] == 6


@pytest.mark.parametrize("package", [fastdraw, reference], ids=["fastdraw", "reference"])
def test_classes_told(package: Any) -> None:
    model, other, given = two(package, "classifier", 6)
    same(model.predict(given["x"], glimpses=6), other.predict(given["x"]))
    (logits, windows), (expected, others) = model.attend(given["x"], glimpses=6), other.attend(given["x"])
    same(logits, expected)
    same(tuple(windows), tuple(others))
    assert len(windows.centre_x) == 6


@pytest.mark.parametrize("package", [fastdraw, reference], ids=["fastdraw", "reference"])
def test_what_is_refused(package: Any) -> None:
    model, _, given = two(package, "draw", 4)
    classifier, x = made(package, "classifier"), given["x"]
    for call in (
        model,
        model.reconstruct,
        classifier,
        classifier.predict,
        classifier.attend,
        lambda x, **g: model.sample(3, **g),
    ):
        with pytest.raises(ValueError, match="glimpses: expected at least 1, got 0"):
            call(x, glimpses=0)
        with pytest.raises(TypeError, match="glimpses: expected a whole number, got"):
            call(x, glimpses=2.5)
    # Noise for another number of glimpses than are asked for, and than the model's own where none are.
    with pytest.raises(ValueError, match=r"noise: expected shape \[2, 3, 4\], got .*\(4, 3, 4\)"):
        model(x, given["noise"], glimpses=2)
    with pytest.raises(ValueError, match=r"noise: expected shape \[3, 3, 4\], got .*\(4, 3, 4\)"):
        model.sample(3, given["noise"])


@pytest.mark.parametrize("kind", ["draw", "classifier"])
def test_a_training_step(kind: str) -> None:
    models = two(fastdraw, kind, 2)
    outs = []
    for model, more in ((models[0], {"glimpses": 2}), (models[1], {})):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        step = fastdraw.GraphedStep(model, optimizer, models[2]["x"], clip=1.0, accumulate=2, **more)
        outs.append(step(**models[2]))
    same(tuple(outs[0]), tuple(outs[1]))
    same(models[0].state_dict(), models[1].state_dict())
    with pytest.raises(ValueError, match="glimpses: expected at least 1, got 0"):
        fastdraw.GraphedStep(models[0], torch.optim.Adam(models[0].parameters()), models[2]["x"], glimpses=0)


def test_the_sampler() -> None:
    model, other, given = two(fastdraw, "draw", 5)
    sampler = fastdraw.Sampler(model, glimpses=5).eval()
    same(sampler(given["noise"]), other.sample(3, given["noise"]))
    program = torch.export.export(sampler, (given["noise"],), dynamic_shapes={"noise": {1: torch.export.Dim("n")}})
    same(program.module()(given["noise"][:, :2].contiguous()), other.sample(2, given["noise"][:, :2].contiguous()))
    with pytest.raises(ValueError, match="noise: expected shape"):
        sampler(given["noise"][:3])
    with pytest.raises(ValueError, match="glimpses: expected at least 1, got 0"):
        fastdraw.Sampler(model, glimpses=0)


@pytest.mark.parametrize("kind", ["draw", "classifier"])
def test_compiled(kind: str) -> None:
    model = two(fastdraw, kind, 2)[0]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    # The third number is where torch.compile takes it for one that varies.
    for glimpses in (2, 3, 5):
        other = made(fastdraw, kind, glimpses=glimpses)
        other.load_state_dict(model.state_dict())
        given = inputs(other)
        one, expected = compiled(**given, glimpses=glimpses), other(**given)
        torch.testing.assert_close(one.loss, expected.loss)
        one.loss.backward()
        expected.loss.backward()
        torch.testing.assert_close(
            model.initial_canvas.grad if kind == "draw" else model.initial_hidden.grad,
            other.initial_canvas.grad if kind == "draw" else other.initial_hidden.grad,
        )
        model.zero_grad()
