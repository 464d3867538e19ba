"""Mistakes a user can make with the classifier: each error names the argument, what came and what was expected."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from small_models import KINDS

from fastdraw import ClassifierConfig, DRAWClassifier, reference

SMALL = KINDS["classifier"][1]
X = torch.rand(3, 2, 9, 7)
LABELS = torch.tensor([0, 4, 2])


@pytest.mark.parametrize("kind", [DRAWClassifier, reference.DRAWClassifier])
@pytest.mark.parametrize(
    ("arguments", "failure", "message"),
    [
        ((X[0],), ValueError, r"x: expected shape \[B, 2, 9, 7\], got"),
        ((X.int(),), TypeError, "x: expected a floating-point tensor, got"),
        ((X + 0.5,), ValueError, r"x: expected values in \[0, 1\], got values from"),
        ((X * float("nan"),), ValueError, r"x: expected values in \[0, 1\]"),
        ((X.to("meta"),), ValueError, r"x: expected the device of the model's weights \(cpu\), got meta"),
        ((X, [0, 4, 2]), TypeError, r"labels: expected a tensor, got \[0, 4, 2\]"),
        ((X, LABELS.int()), ValueError, r"labels: expected an int64 tensor of shape \[3\], got a int32 tensor"),
        ((X, LABELS.float()), ValueError, r"labels: expected an int64 tensor of shape \[3\], got a float32 tensor"),
        ((X, LABELS.to("meta")), ValueError, r"labels: expected the device of the model's weights \(cpu\), got meta"),
        ((X, LABELS[:2]), ValueError, r"labels: expected an int64 tensor of shape \[3\], got a int64 tensor of shape \(2,\)"),
        ((X, LABELS + 1), ValueError, "labels: expected class numbers from 0 to 4, got numbers from 1 to 5"),
        ((X, LABELS - 1), ValueError, "labels: expected class numbers from 0 to 4, got numbers from -1 to 3"),
    ],
)
def test_bad_input(kind: Any, arguments: tuple[Any, ...], failure: type[Exception], message: str) -> None:
    with pytest.raises(failure, match=message):
        kind(**SMALL)(*arguments)


@pytest.mark.parametrize(
    ("change", "failure", "message"),
    [
        ({"glimpses": 0}, ValueError, "glimpses: expected at least 1, got 0"),
        ({"hidden_size": 2.5}, TypeError, "hidden_size: expected a whole number, got 2.5"),
        ({"read_size": None}, TypeError, "read_size: expected a whole number, got None"),
        ({"num_classes": True}, TypeError, "num_classes: expected a whole number, got True"),
        ({"image_shape": (9, 7)}, ValueError, "image_shape: expected (channels, height, width), got (9, 7)"),
        ({"image_shape": (1, 0, 7)}, ValueError, "image_shape: expected at least 1, got 0"),
    ],
)
def test_bad_configurations(change: dict[str, Any], failure: type[Exception], message: str) -> None:
    for make in (DRAWClassifier, ClassifierConfig):
        with pytest.raises(failure, match=re.escape(message)):
            make(**{**SMALL, **change})
