"""Whole models on the recurrence's pieces in Triton, on a GPU or in the interpreter: by error budget, the same bits twice, and
how many launches a glimpse takes.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_models import converted, inputs, pair, results
from torch.utils._python_dispatch import TorchDispatchMode

import fastdraw
from fastdraw.kernels.triton import launch, pieces
from fastdraw.ops import glimpses, glimpses_backward
from fastdraw.ops.glimpses import Shape
from fastdraw.testing import check

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("canvas_memory", ["keep", "rebuild"])
@pytest.mark.parametrize("sizes", [(2, 5), (None, 3), (9, None)], ids=str)
def test_a_whole_model(sizes: tuple[int | None, ...], canvas_memory: str, autocast: torch.dtype | None) -> None:
    sizes = {"read_size": sizes[0], "write_size": sizes[1]}
    model, other = pair("draw", torch.float32, **sizes, canvas_memory=canvas_memory)
    model.to(DEVICE)
    given = inputs(other)
    exact = results(copy.deepcopy(other).double(), converted(given, torch.float64))
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        naive = results(other, given)
    with fastdraw.backend("triton"), torch.autocast(DEVICE, autocast or torch.bfloat16, enabled=autocast is not None):
        actual, again = (results(model, converted(given, DEVICE)) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in actual.items()), "not the same bits twice"
    check(actual, exact, [naive], autocast or torch.float32)


class Launches(TorchDispatchMode):
    """Counts what would be a launch on a GPU: this library's, and every operation of torch that is not a view."""

    #: They launch nothing. fill_ on a new tensor is what the tests' poisoned memory adds.
    FREE = (
        "view",
        "slice",
        "split",
        "select",
        "empty",
        "new_empty",
        "detach",
        "t.",
        "transpose",
        "alias",
        "expand",
        "as_strided",
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.names: list[str] = []
        monkeypatch.setattr(pieces, "launched", self.launched)

    def launched(self, launcher: Any, *arguments: Any) -> bool:
        one = launcher(*arguments)
        if one is None:
            return False
        self.names.append(one.kernel.__name__)
        # What the interpreter does with torch is no launch.
        with torch.utils._python_dispatch._disable_current_modes():
            launch.run(one)
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not name.startswith(self.FREE) and not name.startswith("_"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_launches_of_a_glimpse(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 5 forward and 5 backward; weight gradients once for all glimpses, as they are at the paper's B = 128."""
    torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(pieces, "chunk_rows", lambda s, dtype: 16 * 2)
    forward, backward = [], []
    for steps in (8, 16):
        model, _ = pair("draw", torch.float32, glimpses=steps, image_shape=(1, 9, 7))
        layers = (layer.detach() for layer in fastdraw.ops.recurrence._layers(model.to(DEVICE), True))
        weights = fastdraw.ops.recurrence._joined(fastdraw.ops.recurrence.Layers(*layers), dtype)
        shape = Shape(steps, 2, 1, 9, 7, 8, 4, 2, 5)
        weights = glimpses.prepared(pieces, weights, shape, True, backward=False, multiplies_x=True)
        x, noise = torch.rand(2, 1, 9, 7, device=DEVICE), torch.randn(steps, 2, 4, device=DEVICE)
        tape = glimpses.make_tape(shape, weights.canvas, dtype, True, True, True, pieces.new_buffers)
        with Launches(monkeypatch) as counted:
            glimpses.forward(pieces, x, noise, None, weights, shape, tape)
        forward.append(len(counted.names))
        grads = torch.randn(shape.image, device=DEVICE), torch.randn(steps, 2, device=DEVICE)
        with Launches(monkeypatch) as counted:
            glimpses_backward.backward(pieces, *grads, x, noise, weights, shape, tape, True, True)
        backward.append(len(counted.names))
        kernels = [name for name in counted.names if name.endswith("_kernel")]
        assert len(kernels) == 5 * steps + 2, kernels
    assert (forward[1] - forward[0]) / 8 <= 5, (forward, counted.names)
    assert (backward[1] - backward[0]) / 8 <= 5, (backward, counted.names)
