"""Every preset on its own data: one command, as it stands but for its length and the model's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datafiles import REAL
from training import records

from fastdraw import data
from fastdraw.cli import main
from fastdraw.data.splits import Labels, Splits
from fastdraw.train import load_checkpoint
from fastdraw.train.recipes import RECIPES

#: The names that data sets have, with the form of what a model gets.
SETS = {
    "mnist": (1, 28, 28),
    "binarized-mnist": (1, 28, 28),
    "two-digits": (1, 60, 60),
    "svhn": (3, 54, 54),
    "cifar10": (3, 32, 32),
    "omniglot": (1, 28, 28),
    "cluttered-mnist": (1, 100, 100),
    "cluttered-mnist-60": (1, 60, 60),
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first images of each part: evaluating all of them takes longest."""
    original = data.load

    def load(*args: Any, **kwargs: Any) -> Splits:
        splits = original(*args, **kwargs)
        labels = splits.labels and Labels(splits.labels.train[:60], splits.labels.validation[:5], splits.labels.test[:5])
        train, validation, test = splits.train[:60], splits.validation[:5], splits.test[:5]
        return splits._replace(train=train, validation=validation, test=test, labels=labels)

    monkeypatch.setattr(data, "load", load)


@pytest.mark.parametrize("name", SETS)
def test_a_preset_on_its_data(name: str, few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        data.load(name, REAL, download=False)
    except data.DataError:
        pytest.skip(f"{name} is not in {REAL}")
    run = tmp_path / "run"
    small = ["--glimpses=2", "--hidden-size=8", "--batch-size=30", "--steps=2", "--log-every=1", "--samples=4", "--threads=1"]
    assert main(["train", "--data", name, "--data-dir", str(REAL), "--out", str(run), *small]) == 0
    config = load_checkpoint(run).config
    assert config.image_shape == SETS[name]
    if name in RECIPES:
        # The preset was made for images of this form.
        assert RECIPES[name].config.image_shape == SETS[name]
    figure = "error" if name.startswith("cluttered") else "nats"
    assert [(r["split"], r["step"]) for r in records(run) if r[figure] >= 0] == [
        *(("train", 1), ("train", 2)),
        *(("validation", 2), ("test", 2)),
    ]
    out = capsys.readouterr().out
    assert "5 held-out images" in out
    assert ("samples.png" in out) == (figure == "nats")
