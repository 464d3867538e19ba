"""`fastdraw evaluate`: what it tells is what training told, and more; what cannot be is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import mistake
from training import run

from fastdraw import DRAWClassifier, data, weights
from fastdraw.cli import main
from fastdraw.evaluation import Mean, class_errors, evaluate_run, likelihood, of_run
from fastdraw.evaluation.text import lines
from fastdraw.runs.checkpoint import NAME, load_checkpoint, load_model, save_checkpoint
from fastdraw.runs.run import Run

SMALL: dict[str, Any] = {"data": "digits", "glimpses": 3, "hidden_size": 12, "read_size": "4", "steps": 6, "threads": 1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run whose moving average is far from its weights, in batches that do not divide the images."""
    folder = tmp_path_factory.mktemp("runs") / "draw"
    return run(folder, **SMALL, latent_size=3, write_size="5", ema=0.9, eval_batch=70, seed=3, batch_size=20)


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(tmp_path_factory.mktemp("runs") / "classify", **SMALL, task="classify", latent_size=None, write_size=None)


def tell(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["evaluate", *args]) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    return out


def test_a_run_gives_the_nats_that_training_gave(drawn: Any) -> None:
    for split in ("validation", "test"):
        told, result = getattr(drawn, split), evaluate_run(drawn.folder, split=split).result
        assert result.bound == Mean(pytest.approx(told.nats, rel=1e-6), pytest.approx(told.standard_error, rel=1e-4))
        assert result.kl.mean == pytest.approx(told.kl, rel=1e-6)
        assert result.images == told.images == 180


def test_the_last_weights_are_others_than_their_average(drawn: Any) -> None:
    average, last = evaluate_run(drawn.folder), evaluate_run(drawn.folder / NAME, ema=False)
    assert average.averaged
    assert not last.averaged
    assert average.step == last.step == 6
    assert last.result.bound.mean != average.result.bound.mean
    told = likelihood(load_model(drawn.folder, ema=False), data.load("digits").test, 70, 3, True)
    assert last.result.bound.mean == told.bound.mean


def test_the_checkpoint_is_read_once(drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, read = [], weights.read
    monkeypatch.setattr(weights, "read", lambda file, error: files.append(file) or read(file, error))
    evaluate_run(drawn.folder, limit=10)
    assert files == [drawn.folder / NAME]


def drawn_images(folder: Path, seed: int) -> torch.Tensor:
    """The rows that `--limit 10` evaluates, in their own order and never the first ten alone."""
    rows = of_run._rows(Run(folder), 10, seed)
    assert isinstance(rows, torch.Tensor)
    assert rows.tolist() == sorted(set(rows.tolist())) != list(range(10))
    return rows


def test_options_reach_the_evaluation(drawn: Any) -> None:
    few = evaluate_run(drawn.folder, samples=4, limit=10, batch_size=40).result
    assert (few.images, few.samples) == (10, 4)
    assert few.importance.mean < few.bound.mean
    bounds = [evaluate_run(drawn.folder, limit=10, **o).result.bound.mean for o in ({}, {"seed": 4}, {"precision": "bf16"})]
    assert len(set(bounds)) == 3
    assert bounds[2] == pytest.approx(bounds[0], rel=0.01)
    parts = {split: evaluate_run(drawn.folder, split=split, limit=7).result for split in ("train", "validation", "test")}
    assert len({result.bound.mean for result in parts.values()}) == 3
    # A part is drawn by the seed, since files are often sorted by class, and the report says so.
    report = evaluate_run(drawn.folder, limit=10)
    assert f"10 of the {report.split_images} test images of digits, drawn by seed {report.seed}" in lines(report)[0]
    images, chosen = drawn_images(drawn.folder, report.seed), drawn_images(drawn.folder, report.seed + 1)
    assert len(images) == len(chosen) == 10
    assert not torch.equal(images, chosen)
    assert "drawn by" not in lines(evaluate_run(drawn.folder, limit=report.split_images))[0]
    told: list[tuple[int, int]] = []
    evaluate_run(drawn.folder, samples=2, limit=10, batch_size=10, progress=lambda *now: told.append(now))
    assert told == [(0, 20), (10, 20), (20, 20)]


def test_other_images_than_the_runs(drawn: Any, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    np.savez(tmp_path / "noise.npz", train_images=images)
    report = evaluate_run(drawn.folder, data=str(tmp_path / "noise.npz"))
    assert report.result.images == 4
    assert report.result.bound.mean > 2 * evaluate_run(drawn.folder).result.bound.mean


def test_the_best_weights_are_evaluated_as_the_run_was_trained(drawn: Any, tmp_path: Path) -> None:
    """best.safetensors tells no options: those of the checkpoint beside it count."""
    saved = load_checkpoint(drawn.folder)
    save_checkpoint(tmp_path / NAME, saved)
    save_checkpoint(tmp_path / "best.safetensors", replace(saved, model=saved.ema, ema={}, optimizer={}, training={}))
    assert evaluate_run(tmp_path / "best.safetensors").result == evaluate_run(drawn.folder).result
    (tmp_path / NAME).unlink()
    with pytest.raises(ValueError, match="data: expected the name or path of the images"):
        evaluate_run(tmp_path / "best.safetensors")


def test_a_classifiers_errors(classified: Any) -> None:
    report = evaluate_run(classified.folder, batch_size=50)
    result, told = report.result, classified.test
    assert result.error == Mean(pytest.approx(told.error), pytest.approx(told.standard_error))
    assert result.cross_entropy.mean == pytest.approx(told.cross_entropy, rel=1e-6)
    confusion, labels = torch.tensor(result.confusion), data.load("digits").labels.test
    assert confusion.sum(1).tolist() == labels.bincount(minlength=10).tolist()
    assert 100 * (1 - confusion.diagonal().sum() / 180) == pytest.approx(result.error.mean)
    for a, (row, error) in enumerate(zip(result.confusion, result.by_class, strict=True)):
        assert error.mean == pytest.approx(100 * (sum(row) - row[a]) / sum(row))
    assert result.images == 180


def test_confusion_counts_what_was_told_by_class() -> None:
    """A classifier that answers class 2 whatever it sees, and images of the classes 0, 0, 1, 2."""
    model = DRAWClassifier((1, 4, 4), glimpses=1, hidden_size=3, read_size=2, num_classes=4)
    torch.nn.init.zeros_(model.output.weight)
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))
    images, labels = torch.zeros(4, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 1, 2])
    result = class_errors(model, images, labels, batch_size=3)
    assert result.confusion == [[0, 0, 2, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert result.error.mean == 75.0
    assert result.error.standard_error == pytest.approx(100 * (0.75 * 0.25 / 4) ** 0.5)
    assert [None if m is None else m.mean for m in result.by_class] == [100.0, 100.0, 0.0, None]


def test_what_is_printed(drawn: Any, classified: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    text = tell(capsys, str(drawn.folder), "-k", "3", "--limit", "20", "--json", str(file))
    assert "moving average of the weights of step 6, 20 of the 180 test images of digits, drawn by seed 3" in text
    figures = json.loads(file.read_text())
    result = figures["result"]
    for name, word in (
        ("bound", "bound: "),
        ("importance", "3 samples: "),
        ("kl", "KL "),
        ("reconstruction", "reconstruction "),
    ):
        assert f"{word}{result[name]['mean']:.2f} +- {result[name]['standard_error']:.2f}" in text
    for t, kl in enumerate(result["kl_per_glimpse"], 1):
        assert f"{t}: {kl['mean']:.3f} +- {kl['standard_error']:.3f}" in text
    assert f"{result['effective_samples']:.1f} of them count" in text
    # Without samples there is nothing to weigh, and - prints the figures alone.
    assert "importance" not in tell(capsys, str(drawn.folder), "--limit", "20", "--no-ema")
    alone = json.loads(tell(capsys, str(drawn.folder), "-k", "3", "--limit", "20", "--json", "-"))
    assert alone == figures

    text = tell(capsys, str(classified.folder))
    report = evaluate_run(classified.folder)
    assert f"error: {report.result.error} %" in text
    assert text.splitlines() == lines(report)
    rows = [line.split() for line in text.splitlines()[-10:]]
    assert [[int(n) for n in row[1:11]] for row in rows] == report.result.confusion


def test_mistakes_are_one_line(drawn: Any, classified: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, classifier = str(drawn.folder), str(classified.folder)
    (tmp_path / "torn.safetensors").write_bytes((drawn.folder / NAME).read_bytes()[:1000])
    np.savez(tmp_path / "unlabelled.npz", train_images=np.zeros((40, 28, 28), np.uint8))
    np.savez(tmp_path / "other.npz", train_images=np.zeros((40, 14, 28), np.uint8))
    labels = np.full(40, 11)
    np.savez(tmp_path / "more.npz", train_images=np.zeros((40, 28, 28), np.uint8), train_labels=labels)
    for args, words in [
        (["nothing"], "nothing: no such checkpoint"),
        ([str(tmp_path / "torn.safetensors")], "torn.safetensors: expected a whole safetensors file"),
        ([run, "--split", "tests"], "split: expected train, validation or test, got 'tests'"),
        ([run, "--samples", "0"], "samples: expected at least 1"),
        ([run, "--batch", "0"], "--batch: expected at least 1"),
        ([run, "--limit", "-3"], "limit: expected at least 1"),
        ([run, "--seed", "-1"], "seed: expected at least 0"),
        ([run, "--precision", "fp16"], "precision: expected one of fp32, bf16 on cpu, got 'fp16'"),
        ([run, "--data", "nowhere"], "data: expected digits"),
        ([run, "--data", str(tmp_path / "other.npz")], "data: expected images of 1x28x28"),
        ([run, "--json", str(tmp_path / "other.npz" / "file")], "--json: expected a file in a folder that can be written to"),
        ([classifier, "--samples", "2"], "samples: expected 1 for a classifier"),
        ([classifier, "--data", str(tmp_path / "unlabelled.npz")], "expected images whose classes are known"),
        ([classifier, "--data", str(tmp_path / "more.npz")], "data: expected classes from 0 to 9"),
        ([run, "--speed"], "No such option"),
        ([], "RUN"),
    ]:
        assert words in mistake(capsys, "evaluate", *args), args


def test_a_float64_model_is_evaluated(tmp_path: Path, drawn: Any) -> None:
    saved = load_checkpoint(drawn.folder)
    double = {name: tensor.double() for name, tensor in saved.ema.items()}
    save_checkpoint(tmp_path / NAME, replace(saved, model=double, ema={}, optimizer={}))
    assert load_model(tmp_path).initial_canvas.dtype == torch.float64
    result = evaluate_run(tmp_path, limit=20, samples=2).result
    assert result.bound.mean == pytest.approx(evaluate_run(drawn.folder, limit=20).result.bound.mean, rel=1e-5)
