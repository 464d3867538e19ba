"""The paper's experiments at toy size: from one command to the report, stopped and gone on with, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from training import SMALL, Quiet, after_step, assert_same_run, stop

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.reproduce import __main__ as command
from benchmarks.reproduce import runner, search
from benchmarks.reproduce.experiments import EXPERIMENTS
from fastdraw.runs.checkpoint import NAME
from fastdraw.runs.parallel import Processes
from fastdraw.train import TrainOptions, load_checkpoint
from fastdraw.train import loop as loop_module
from fastdraw.train.setup import prepare

#: What a report names of every run.
RUN = {
    *("seed", "steps", "epochs", "images", "training_seconds", "images_per_second", "trained_on", "validation", "test"),
    *("evaluation", "environment", "weights", "checkpoint_bytes", "curve"),
}
PICTURES = {"curve.png", "samples.png", "drawing.png", "windows.png", "nearest.png", "kl.png"}


def toy(out: Path, *more: str, experiment: str = "mnist", **changes: Any) -> int:
    options = {**SMALL, "evaluate_every": 1, "preset": "digits", **changes}
    said = [f"{name}={value}" for name, value in options.items() if value is not None]
    return command.main([experiment, "--out", str(out), "--epochs", "2", "--samples", "3", *more, "--set", *said])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two epochs, never interrupted."""
    out = tmp_path_factory.mktemp("finished")
    assert toy(out, "--seeds", "0", "1") == 0
    return out / "mnist"


def test_the_report(finished: Path) -> None:
    found = json.loads((finished / "results.json").read_text())
    assert (found["experiment"], found["paper"], found["format"]) == ("mnist", 80.97, 1)
    assert "data digits for binarized-mnist" in found["departures"]
    assert "glimpses 3 for 64" in found["departures"]
    assert not any("image_shape" in text for text in found["departures"])
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    for run in found["runs"]:
        assert set(run) == RUN
        assert run["steps"] == 56
        assert run["epochs"] == 2
        assert run["images"] == 56 * 50
        test = run["test"]
        assert test["bound"]["mean"] == pytest.approx(test["reconstruction"]["mean"] + test["kl"]["mean"])
        assert test["importance"]["mean"] < test["bound"]["mean"]
        assert (test["samples"], test["images"]) == (3, 180)
        assert [epoch for _, epoch, _ in run["curve"]["validation"]] == [1, 2]
        assert run["validation"]["mean"] == pytest.approx(run["curve"]["validation"][-1][2], abs=1e-3)
    one, other = (run["test"]["bound"]["mean"] for run in found["runs"])
    assert one != other
    assert found["test"] == {
        "mean": pytest.approx((one + other) / 2),
        "spread": pytest.approx(abs(one - other) / 2**0.5),
        "seeds": 2,
    }
    text = (finished / "results.md").read_text()
    for words in (
        f"{found['test']['mean']:.2f} +-",
        "2 seeds",
        "The paper: 80.97",
        "glimpses 3 for 64",
        "| 1 |",
        "180 test images",
    ):
        assert words in text
    assert str(finished) not in text + json.dumps(found)
    for name in PICTURES:
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_a_finished_experiment_is_left_as_it_is(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the test images were evaluated once more")

    before = {path: path.read_bytes() for path in finished.glob("seed-*/*") if "tfevents" not in path.name}
    monkeypatch.setattr(runner, "evaluate_run", never)
    assert toy(finished.parent, "--seeds", "0", "1") == 0
    assert {path: path.read_bytes() for path in before} == before
    # More epochs are more to do; other weights would be another run.
    assert "hidden_size: expected 16, as the run to resume" in mistake(
        ["mnist", "--out", str(finished.parent), "--set", "data=digits", "hidden_size=17"], capsys
    )


def test_stopped_and_gone_on_with(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal within an epoch, and then while the test images were evaluated."""
    evaluate = runner.evaluate_run

    def crashing(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with after_step(33, stop):
        assert toy(tmp_path) == 143
    assert load_checkpoint(tmp_path / "mnist" / "seed-0").step == 33
    assert not (tmp_path / "mnist" / "results.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "evaluate_run", crashing)
        assert toy(tmp_path) == 130
    assert runner.evaluate_run is evaluate
    assert toy(tmp_path) == 0
    assert_same_run(finished / "seed-0", tmp_path / "mnist" / "seed-0")
    one, other = (json.loads((folder / "results.json").read_text())["runs"][0] for folder in (finished, tmp_path / "mnist"))
    for name in ("test", "validation", "curve", "steps"):
        assert one[name] == other[name]


def test_minutes_end_a_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy(tmp_path, "--minutes", "0.0001") == 142
    lines = capsys.readouterr().out.splitlines()
    assert all("the same command goes on" in line for line in lines[-2:])
    assert not any("--resume" in line for line in lines)
    saved = load_checkpoint(tmp_path / "mnist" / "seed-0")
    assert saved.step < 56
    assert toy(tmp_path) == 0
    assert load_checkpoint(tmp_path / "mnist" / "seed-0").step == 56


def test_a_classifier(tmp_path: Path) -> None:
    assert toy(tmp_path, experiment="cluttered", preset=None, latent_size=None, write_size=None, task="classify") == 0
    found = json.loads((tmp_path / "cluttered" / "results.json").read_text())
    run = found["runs"][0]
    assert found["unit"] == "% error"
    assert found["test"] == {"mean": run["test"]["error"]["mean"], "spread": None, "seeds": 1}
    assert sum(map(sum, run["test"]["confusion"])) == 180
    assert "cross-entropy" in (tmp_path / "cluttered" / "results.md").read_text()
    assert (tmp_path / "cluttered" / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_every_experiment_is_of_options_that_there_are() -> None:
    for experiment in EXPERIMENTS.values():
        options = TrainOptions(**experiment.chosen({}))
        assert options.schedule == "cosine"
        assert (options.recipe.task == "classify") == (experiment.unit == "% error")
    # Few glimpses are trained as the recipe says, many by what no search has covered yet.
    few = TrainOptions(**EXPERIMENTS["mnist"].chosen({"glimpses": 32})).resolved((1, 28, 28), 1)
    assert (few.learning_rate, few.batch_size, few.warmup_steps, few.kl_warmup, few.ema) == (2e-3, 50, 1000, 1000, 0.9995)
    many = TrainOptions(**EXPERIMENTS["mnist"].chosen({})).resolved((1, 28, 28), 1)
    assert (many.learning_rate, many.batch_size, many.warmup_steps, many.kl_warmup, many.ema) == (
        1e-3,
        100,
        1000,
        2000,
        0.9995,
    )


def test_the_checkpoint_of_mnist_is_small_enough_to_carry(tmp_path: Path) -> None:
    """Weights, their average and both of Adam's moments: what a run needs to go on elsewhere."""
    options = {**EXPERIMENTS["mnist"].chosen({}), "data": "digits", "out": str(tmp_path / "run")}
    run = loop_module.Run(prepare(TrainOptions(**options), None, Processes(None)), Quiet())
    run.save()
    run.close()
    saved = load_checkpoint(tmp_path / "run")
    assert saved.config == TrainOptions(**EXPERIMENTS["mnist"].options).config((1, 28, 28))
    assert saved.ema.keys() == saved.model.keys()
    assert len(saved.optimizer) == 3 * len(saved.model)
    assert (tmp_path / "run" / NAME).stat().st_size <= 16 * 2**20


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["moon"], "invalid choice: 'moon'"),
        (["mnist", "--seeds", "-1"], "seeds: expected at least 0, got -1"),
        (["mnist", "--samples", "0"], "samples: expected at least 1, got 0"),
        (["mnist", "--minutes", "0"], "minutes: expected a number above 0, got 0"),
        (["mnist", "--set", "wings=2"], "set: expected an option of `fastdraw train` as NAME=VALUE, got 'wings=2'"),
        (["mnist", "--set", "epochs"], "set: expected an option of `fastdraw train` as NAME=VALUE, got 'epochs'"),
        (["mnist", "--set", "clip=long"], "clip: expected float, got 'long'"),
        (["mnist", "--set", "conditional=maybe"], "conditional: expected bool, got 'maybe'"),
        (["mnist", "--glimpses", "0"], "glimpses: expected at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in mistake([*args, "--out", str(tmp_path), "--data-dir", str(tmp_path)], capsys)


def mistake(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = command.main(args)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    return error


def test_data_that_are_missing_and_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert "data_dir: expected a folder with" in mistake(["mnist", "--data-dir", str(tmp_path), *out], capsys)
    (tmp_path / "file").write_text("")
    assert "file" in mistake(["mnist", "--out", str(tmp_path / "file"), "--set", "data=digits"], capsys)
    (tmp_path / "out" / "mnist" / "seed-0").mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / "mnist" / "seed-0" / NAME).write_bytes(b"no checkpoint")
    assert NAME in mistake(["mnist", *out, "--set", "data=digits"], capsys)


def test_a_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    base = [f"{name}={value}" for name, value in {**SMALL, "ema": 0.9, "evaluate_every": 100}.items()]
    args = ["--images", "500", "--log", str(log), "--base", *base, "--"]
    assert search.main([*args, "plain"]) == 0
    first = log.read_text()
    assert search.main([*args, "plain", "cosine:schedule=cosine,learning_rate=2e-3"]) == 0
    assert log.read_text().startswith(first)
    plain, cosine = map(json.loads, log.read_text().splitlines())
    assert (plain["name"], cosine["name"], cosine["options"]["learning_rate"]) == ("plain", "cosine", 0.002)
    assert plain["images"] == cosine["images"] == 500
    assert plain["validation"].keys() == {"average", "weights"}
    assert plain["validation"]["average"]["mean"] != plain["validation"]["weights"]["mean"]
    timed = ["--cpu-seconds", "0.2", *args[2:], "timed"]
    assert search.main(timed) == 0
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["images"] > 0
    assert 0.2 <= last["cpu_seconds"] < 2
    assert plain["curve"][-1] == [500, pytest.approx(plain["validation"]["average"]["mean"], abs=0.01)]
