"""Models that come with fastdraw: what they are, which name means what, and the command that makes one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training import run

import fastdraw
from fastdraw import pretrained
from fastdraw.cli import main
from fastdraw.evaluation import evaluate_run
from fastdraw.runs.checkpoint import load_checkpoint, load_model

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import pretrained as command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", pretrained.names())
def test_every_one_is_small_has_a_card_and_loads(name: str, here: Path) -> None:
    folder = pretrained.FOLDER / name
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert (folder / "model.safetensors").stat().st_size <= 2_000_000
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    model = fastdraw.DRAW.from_pretrained(name)
    assert next(model.parameters()).dtype == torch.float32
    for tensor, found in zip(stored.values(), map(model.state_dict().get, stored), strict=True):
        assert torch.equal(tensor.float(), found)
    text = (folder / "README.md").read_text()
    for words in ("nats per image on", "fastdraw train --data", f'from_pretrained("{name}")', "step "):
        assert words in text


def test_mnist_draws_digits_from_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "mnist", "-n", "4", "--npz"]) == 0
    assert main(["view", "mnist", "-n", "2", "--what", "samples"]) == 0
    said = capsys.readouterr()
    assert said.err.count("fastdraw: mnist is the model that comes with it: ") == 2
    assert (here / "mnist-view" / "samples.png").exists()
    assert main(["evaluate", "mnist", "--data", "digits", "--limit", "20", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == load_checkpoint("mnist").step > 0
    # Digits of other pens; grey says 28 x 28 x log 2 = 543 nats.
    assert 0 < found["result"]["bound"]["mean"] < 400
    # A name that is no path here is nothing to write to.
    assert sorted(path.name for path in here.iterdir()) == ["mnist-view", "samples.npz", "samples.png"]


def test_a_folder_here_comes_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = fastdraw.DRAW((1, 5, 5), 2, 4, 3, 2, 2)
    (here / "mnist").mkdir()
    for call in (fastdraw.DRAW.from_pretrained, load_model):
        with pytest.raises((ValueError, OSError), match="the model mnist that comes with fastdraw is taken where no folder"):
            call("mnist")
    assert main(["sample", "mnist"]) == 2
    assert "that comes with fastdraw is taken where no folder or file" in capsys.readouterr().err
    own.save_pretrained("mnist")
    for call in (fastdraw.DRAW.from_pretrained, load_model):
        assert call("mnist").config == own.config
    assert main(["sample", "mnist", "-n", "2"]) == 0
    assert "comes with it" not in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"one of fastdraw's own \(.*mnist.*\)"):
        fastdraw.DRAW.from_pretrained("moon")


def test_a_folder_of_another_kind_is_refused(here: Path) -> None:
    fastdraw.DRAW((1, 5, 5), 2, 4, 3, 2, 2).save_pretrained("model")
    about = json.loads(Path("model/config.json").read_text())
    for changed in ({"architectures": ["Moon"]}, {"architectures": "DRAW"}, {"step": -1}, {"training": 3}):
        Path("model/config.json").write_text(json.dumps({**about, **changed}))
        with pytest.raises(ValueError, match="expected the configuration of a model of fastdraw"):
            load_model("model")
    with pytest.raises(ValueError, match="DRAWClassifier"):
        fastdraw.DRAWClassifier.from_pretrained("mnist")


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"ema": 0, "task": "classify", "latent_size": None, "write_size": None}])
def test_one_is_made_of_a_run(here: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(here / "run", steps=30, **changes)
    saved = load_checkpoint("run")
    assert command.main(["run", "--name", "small", "--out", str(here / "made")]) == 0
    out = capsys.readouterr().out
    kept = load_file("made/small/model.safetensors")
    for name, tensor in (saved.ema or saved.model).items():
        assert torch.equal(kept[name], tensor.bfloat16())
    text, found = Path("made/small/README.md").read_text(), evaluate_run("made/small", "digits")
    mean = found.result.error if "task" in changes else found.result.bound
    figure = f"{mean.mean:.2f} +- {mean.standard_error:.2f}"
    assert figure in out
    assert f"{figure} {'%' if 'task' in changes else 'nats per image'} on 180 test images of digits" in text
    assert "Trained to step 30 of 30 (1.1 epochs), by" in text
    assert "--hidden-size 16" in text
    assert ("moving average" in text) == bool(saved.ema)


def test_what_makes_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["nowhere", "--name", "moon"]) == 2
    assert command.main(["mnist", "--name", "../moon"]) == 2
    assert "name: expected letters, digits and _, got '../moon'" in capsys.readouterr().err
