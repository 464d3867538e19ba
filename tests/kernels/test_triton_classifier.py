"""The whole classifier on Triton's pieces, on a GPU or in the interpreter: by error budget, and the same bits twice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from small_models import KINDS, converted, pair, results
from subjects import waiting_refused

import fastdraw
from fastdraw import reference
from fastdraw.testing import check, nudged

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: Changes to the small model, each with what it is there for.
CASES = [
    {},
    {"image_shape": (1, 17, 20), "read_size": 12, "hidden_size": 17},  # the paper's window; nothing a power of two
    {"read_size": 1, "glimpses": 1},  # the shortest, which has neither a stride nor a state that places a window
    pytest.param({"image_shape": (1, 100, 100), "glimpses": 8, "hidden_size": 256, "read_size": 12}, marks=pytest.mark.gpu),
]


def with_moved_windows(exact: reference.DRAWClassifier) -> Iterator[reference.DRAWClassifier]:
    """The gradient to the initial state all but cancels, and of what rounding does to it the reference's own error is one
    draw; the last bits of a window's params tell of more."""
    moved = copy.deepcopy(exact)
    for (bias,) in nudged([exact.read_attention.bias], torch.float32, 0):
        moved.read_attention.bias.data.copy_(bias)
        yield moved


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("changes", CASES, ids=str)
def test_a_whole_classifier(changes: dict[str, Any], autocast: torch.dtype | None) -> None:
    model, other = pair("classifier", torch.float32, std=0.3 if "glimpses" not in changes else 0.05, **changes)
    shape = {**KINDS["classifier"][1], **changes}["image_shape"]
    given = {"x": torch.rand(3, *shape), "labels": torch.tensor([0, 4, 2])}

    def on(device: str, m: reference.DRAWClassifier, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        enabled = autocast is not None and dtype == torch.float32
        with torch.autocast(device, autocast or torch.bfloat16, enabled=enabled):
            return results(m, converted(given, device, dtype))

    wide = copy.deepcopy(other).double()
    exact, naive = on("cpu", wide, torch.float64), on("cpu", other)
    moved = (on("cpu", one, torch.float64) for one in with_moved_windows(wide))
    with fastdraw.backend("triton"):
        model.to(DEVICE)
        actual, again = on(DEVICE, model), on(DEVICE, model)
        windows = model.attend(given["x"].to(DEVICE))[1]
    assert all(field.isfinite().all() for field in windows)
    assert all(torch.equal(value, again[name]) for name, value in actual.items()), "not the same bits twice"
    check(actual, exact, chain([naive], moved), autocast or torch.float32)


@pytest.mark.gpu
def test_nothing_waits_for_the_device() -> None:
    model = fastdraw.DRAWClassifier().to(DEVICE)
    given = {"x": torch.rand(4, 1, 100, 100, device=DEVICE), "labels": torch.arange(4, device=DEVICE)}
    with fastdraw.backend("triton"):
        first = results(model, given)
        with waiting_refused():
            second = results(model, given)
            model.attend(given["x"])
            model.predict(given["x"])
    assert all(torch.equal(value, second[name]) for name, value in first.items())
