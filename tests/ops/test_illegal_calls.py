"""Whatever is given for an argument: it works, or it is a TypeError, a ValueError or an OSError, never another error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastdraw
from fastdraw import evaluation, view
from fastdraw.runs import checkpoint
from fastdraw.train import TrainOptions, load_checkpoint, load_model, train
from fastdraw.train.options import DEFAULTS

DRAW, CLASSIFIER = fastdraw.DRAW((1, 8, 8), 2, 4, 2, 2, 2), fastdraw.DRAWClassifier((1, 8, 8), 2, 4, 2, 3)
IMAGES, NOISE = torch.rand(2, 1, 8, 8), torch.zeros(2, 2, 2)
BYTES, LABELS = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
SAVED = checkpoint.Checkpoint(DRAW.config, DRAW.state_dict())
with torch.no_grad():
    _, TRAJECTORY = DRAW.sample(2, return_trajectory=True)
WRONG = [
    *("x", "\x1b", 5, -1, 1.5, float("nan"), True, None, [], {}, (), b"b", ["a"], {"a": 1}, object(), lambda: 0),
    *(torch.zeros(2), torch.tensor(float("nan")), np.zeros(()), fastdraw.DRAW, DRAW, CLASSIFIER, DRAW.config, TRAJECTORY),
]
#: Functions, and arguments that each takes.
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "from_pretrained": (fastdraw.DRAW.from_pretrained, {"name_or_path": "model", "device": "cpu"}),
    "save_pretrained": (DRAW.save_pretrained, {"folder": "saved"}),
    "load_state_dict": (DRAW.load_state_dict, {"state_dict": DRAW.state_dict()}),
    "load_port_weights": (fastdraw.load_port_weights, {"model": DRAW, "state_dict": {}}),
    "Sampler": (fastdraw.Sampler, {"model": DRAW}),
    "a sampler": (fastdraw.Sampler(DRAW), {"noise": NOISE, "labels": None}),
    "load_checkpoint": (load_checkpoint, {"path": "saved.safetensors"}),
    "load_model": (load_model, {"path": "saved.safetensors", "device": "cpu"}),
    "save_checkpoint": (checkpoint.save_checkpoint, {"path": "other.safetensors", "checkpoint": SAVED}),
    "train": (train, {"options": "none"}),
    "evaluate_run": (
        evaluation.evaluate_run,
        {"path": "saved.safetensors", "data": "none", "data_dir": None, "split": "test", "samples": 1, "batch_size": None}
        | {"limit": 2, "precision": None, "seed": None, "device": "auto"},
    ),
    "likelihood": (
        evaluation.likelihood,
        {"model": DRAW, "images": BYTES, "batch_size": 2, "seed": 0, "samples": 1, "labels": None, "binarize": False},
    ),
    "class_errors": (evaluation.class_errors, {"model": CLASSIFIER, "images": BYTES, "labels": LABELS, "batch_size": 2}),
    "save_drawing": (view.save_drawing, {"trajectory": TRAJECTORY, "path": "a.gif", "write_size": 2}),
    "save_strip": (view.save_strip, {"trajectory": TRAJECTORY, "path": "a.png", "write_size": 2}),
    "record": (view.record, {"model": DRAW, "x": IMAGES, "noise": NOISE, "labels": None}),
    "save_page": (view.save_page, {"groups": [], "path": "a.html"}),
    "TrainOptions": (TrainOptions, dict(DEFAULTS)),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    DRAW.save_pretrained("model")
    checkpoint.save_checkpoint("saved.safetensors", SAVED)
    function, arguments = CALLS[name]
    refused = 0
    for argument in arguments:
        for value in WRONG:
            if argument == "binarize" and isinstance(value, torch.Tensor):
                continue
            try:
                function(**{**arguments, argument: value})
            except (TypeError, ValueError, OSError):
                refused += 1
    assert refused
