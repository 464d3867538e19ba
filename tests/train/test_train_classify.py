"""Training with labels: the classifier, and DRAW given the class of each image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import pixels
from training import Quiet, records, run, without_timing

from fastdraw import ClassifierConfig, DRAWClassifier, data
from fastdraw.data.splits import Labels, Splits
from fastdraw.train import TrainOptions, load_checkpoint, load_model, train

CLASSIFY: dict[str, Any] = {"task": "classify", "latent_size": None, "write_size": None, "read_size": "6", "batch_size": 50}


def classify(folder: Path, **changes: Any) -> Any:
    return run(folder, **{**CLASSIFY, **changes})


def test_errors_fall(tmp_path: Path) -> None:
    """Guessing is wrong in nine of ten."""
    result = classify(tmp_path / "run", hidden_size=64, steps=200, evaluate_every=4, learning_rate=4e-3)
    assert result.test.error < 20
    assert result.validation.error < 20
    training = [r for r in records(tmp_path / "run") if r["split"] == "train"]
    assert training[-1]["cross_entropy"] < 0.6 < training[0]["cross_entropy"]


def test_a_run_of_the_classifier(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = classify(folder, steps=12)
    assert {name for name in os.listdir(folder) if "tfevents" not in name} == {
        "checkpoint.safetensors",
        "previous.safetensors",
        "config.json",
        "metrics.jsonl",
    }
    assert load_checkpoint(folder).config == ClassifierConfig((1, 28, 28), 3, 16, 6, 10)
    model, digits = load_model(folder), data.load("digits")
    assert isinstance(model, DRAWClassifier)
    assert digits.labels is not None
    torch.set_num_threads(1)
    wrong = model.predict(data.images(digits.test)) != digits.labels.test
    assert result.test.error == pytest.approx(100 * wrong.float().mean().item())
    share = wrong.double().mean().item()
    assert result.test.standard_error == pytest.approx(100 * (share * (1 - share) / len(wrong)) ** 0.5)
    assert result.test.images == len(wrong)
    for r in records(folder):
        assert 0 <= r["error"] <= 100
        assert r["cross_entropy"] > 0
        assert "nats" not in r
    options = json.loads((folder / "config.json").read_text())["options"]
    assert (options["task"], options["binarize"], options["latent_size"]) == ("classify", "none", None)
    train(TrainOptions(**{**options, "out": str(tmp_path / "again")}), None, Quiet())
    assert without_timing(folder) == without_timing(tmp_path / "again")


def images_without_labels(folder: Path) -> str:
    np.savez(folder / "images.npz", train=pixels(60, 9, 8), validation=pixels(9, 9, 8), test=pixels(9, 9, 8))
    return str(folder / "images.npz")


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task: expected images whose classes are known, got .*images\.npz"):
        classify(tmp_path / "run", data=images_without_labels(tmp_path))
    with pytest.raises(ValueError, match=r"conditional: expected images whose classes are known"):
        run(tmp_path / "other", conditional=True, data=images_without_labels(tmp_path))


def test_training_images_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is as large as the images that are made; steps and resuming are as ever."""

    def made(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        y = int(torch.randint(0, 9, (), generator=generator))
        out = torch.zeros(len(batch), 1, 20, 12, dtype=torch.uint8)
        out[:, :, y : y + 12] = batch
        return out

    def part(n: int, height: int, seed: int) -> torch.Tensor:
        return torch.from_numpy(pixels(n, 1, height, 12, seed=seed))

    labels = Labels(*(torch.arange(n) % 3 for n in (60, 9, 9)))
    splits = Splits(part(60, 12, 0), part(9, 20, 1), part(9, 20, 2), "made", labels, made)
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: splits)
    for name, changes in (("draw", {}), ("classify", CLASSIFY)):
        # A schedule that does not hang on the number of steps, which differs.
        changes = {**changes, "batch_size": 20, "data": "made", "checkpoint_every": 4, "schedule": "constant"}
        run(tmp_path / name, **changes, steps=8)
        assert load_checkpoint(tmp_path / name).config.image_shape == (1, 20, 12)
        run(tmp_path / f"{name} in parts", **changes, steps=5)
        run(tmp_path / f"{name} in parts", resume=True, steps=8)
        one, other = load_checkpoint(tmp_path / name), load_checkpoint(tmp_path / f"{name} in parts")
        assert all(torch.equal(one.model[key], other.model[key]) for key in one.model)


def test_drawing_of_a_class(tmp_path: Path) -> None:
    result = run(tmp_path / "run", conditional=True, steps=30, ema=0.9)
    model, digits = load_model(tmp_path / "run"), data.load("digits")
    assert model.config.num_classes == 10
    assert digits.labels is not None
    assert 0 < result.test.nats < 250
    assert model.sample(3, labels=torch.tensor([1, 2, 3])).shape == (3, 1, 28, 28)
    assert (tmp_path / "run" / "samples.png").exists()
    assert run(tmp_path / "run", resume=True, steps=35).step == 35
