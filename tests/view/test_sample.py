"""`fastdraw sample` and `fastdraw view`: the files they write of small models, and mistakes in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import mistake
from PIL import Image

import fastdraw
from fastdraw import data
from fastdraw.cli import main
from fastdraw.runs.checkpoint import Checkpoint, save_checkpoint
from fastdraw.train import load_model
from fastdraw.view import pictures, saving

DRAW = {"image_shape": (1, 28, 28), "glimpses": 2, "hidden_size": 8, "latent_size": 3, "read_size": 2, "write_size": 3}
OPTIONS = {"data": "digits", "data_dir": None, "image_size": None, "binarize": "dynamic"}
EVERYTHING = "drawing.gif drawing.mp4 kl.png nearest.png page.html reconstructions.png samples.png windows.png".split()  # noqa: SIM905


def checkpoint(folder: Path, model: Any, **options: Any) -> str:
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder, Checkpoint(model.config, model.state_dict(), training={"options": OPTIONS | options}))
    return str(folder)


@pytest.fixture
def run(tmp_path: Path) -> str:
    return checkpoint(tmp_path / "run", fastdraw.DRAW(**DRAW))


def said(capsys: pytest.CaptureFixture[str], *args: str) -> list[Path]:
    """The files that a command says it wrote, all of which are there."""
    assert main(list(args)) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    paths = [Path(line) for line in out.splitlines()]
    assert all(path.stat().st_size > 0 for path in paths)
    return paths


def test_sample_draws_what_the_model_draws(capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path) -> None:
    out = tmp_path / "some.png"
    every = ("--npz", "--nearest", "--gif", "--mp4")
    names = [path.name for path in said(capsys, "sample", run, "-n", "5", "--seed", "3", "--out", str(out), *every)]
    assert names == ["some.png", "some.npz", "some-nearest.png", "some.gif", "some.mp4"]
    images = np.load(tmp_path / "some.npz")["images"]
    assert (images.shape, images.dtype) == ((5, 1, 28, 28), np.float32)
    model = load_model(run)
    e = pictures._noise(model, 5, 3, "samples", 0)
    np.testing.assert_allclose(images, model.sample(5, e).detach().numpy(), atol=1e-6)
    # The grid holds them, four pixels for one.
    grid = np.asarray(Image.open(out))
    np.testing.assert_array_equal(grid[6 : 4 + 112 : 4, 6 : 4 + 112 : 4, 0], np.rint(images[0, 0] * 255))
    # Beside the first one in figure 6 stands the training image nearest to it.
    training = data.load("digits").train
    distances = ((torch.from_numpy(images[0]) - training.float() / 255) ** 2).flatten(1).sum(1)
    pairs = np.asarray(Image.open(tmp_path / "some-nearest.png"))
    np.testing.assert_array_equal(pairs[6 : 4 + 112 : 4, 118 : 4 + 224 : 4, 0], training[distances.argmin(), 0].numpy())


def test_the_same_seed_draws_the_same(capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = str(tmp_path / f"{name}.png")
        said(capsys, "sample", f"{run}/checkpoint.safetensors", "-n", "4", "--seed", seed, "--out", out)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_many_samples_are_drawn_in_parts(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(run)
    whole = pictures.draw(model, 9, 0)
    assert whole.shape == (9, 1, 28, 28)
    monkeypatch.setattr(pictures, "CHUNK", 4)
    parts = pictures.draw(model, 9, 0)
    assert parts.shape == whole.shape
    assert len({image.numpy().tobytes() for image in parts}) == 9
    images, trajectory = pictures.draw_slowly(model, 9, 0)
    torch.testing.assert_close(images, parts[:4])
    assert trajectory.canvases.shape == (2, 4, 1, 28, 28)


def test_samples_of_chosen_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = fastdraw.DRAW(**DRAW, num_classes=3)
    run, out = checkpoint(tmp_path / "run", model), str(tmp_path / "a.png")
    said(capsys, "sample", run, "-n", "7", "--labels", "2,0", "--npz", "--gif", "--out", out)
    assert np.load(tmp_path / "a.npz")["labels"].tolist() == [2, 0, 2, 0, 2, 0, 2]
    said(capsys, "sample", run, "-n", "7", "--npz", "--out", out)
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    noise = pictures._noise(model, 7, 0, "samples", 0)
    drawn = model.sample(7, noise, labels=torch.from_numpy(arrays["labels"])).detach()
    np.testing.assert_allclose(arrays["images"], drawn.numpy(), atol=1e-6)
    for labels, words in (("3", "from 0 to 2"), ("0,-1", "from 0 to 2"), ("a,b", "with commas"), ("", "with commas")):
        assert f"labels: expected class numbers {words}" in mistake(capsys, "sample", run, f"--labels={labels}")


def test_view_draws_everything(capsys: pytest.CaptureFixture[str], run: str) -> None:
    paths = said(capsys, "view", run, "-n", "4")
    assert sorted(path.name for path in paths) == EVERYTHING
    assert {path.parent for path in paths} == {Path(run) / "view"}
    assert sorted(path.name for path in (Path(run) / "view").iterdir()) == EVERYTHING


def test_view_draws_what_is_asked_for(capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "down"
    args = ("-n", "3", "--split", "train", "--out", str(out))
    assert [path.name for path in said(capsys, "view", run, "--what", "page,samples", *args)] == ["page.html", "samples.png"]
    assert "Images of the train set" in (out / "page.html").read_text()


def test_view_of_a_classifier(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = fastdraw.DRAWClassifier((1, 28, 28), glimpses=3, hidden_size=8, read_size=4, num_classes=10)
    run = checkpoint(tmp_path / "run", model, binarize="none")
    names = [path.name for path in said(capsys, "view", run, "-n", "3")]
    assert names == ["attention.png", "attention.gif", "attention.mp4", "page.html"]
    assert "RUN: expected a model that draws" in mistake(capsys, "sample", run)
    assert "what: expected all, or some of attention, page for this model, got 'kl'" in mistake(
        capsys, "view", run, "--what", "kl"
    )


def test_without_its_data_the_rest_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = checkpoint(tmp_path / "run", fastdraw.DRAW(**DRAW), data=str(tmp_path / "gone.npz"))
    assert main(["view", run, "-n", "2"]) == 0
    out, errors = capsys.readouterr()
    assert [Path(line).name for line in out.splitlines()] == ["samples.png", "drawing.gif", "drawing.mp4", "page.html"]
    assert errors.count("\n") == 1
    assert "no reconstructions, windows, kl, nearest, the page's reconstructions" in errors
    assert "gone.npz" in errors
    assert "gone.npz" in mistake(capsys, "view", run, "--what", "kl")
    assert "gone.npz" in mistake(capsys, "sample", run, "--nearest", "--out", str(tmp_path / "a.png"))
    # Nothing was written that was not asked for, and nothing half.
    assert not (tmp_path / "a.png").exists()
    # Other images will do, where they are told.
    assert said(capsys, "view", run, "--what", "reconstructions", "--data", "digits", "-n", "2")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("sample RUN -n 0", "number: expected at least 1, got 0"),
        ("sample RUN -n 1000000000", "number: expected images that fit into"),
        ("sample RUN -n 1000000000000000000000000000000", "number: expected images that fit into"),
        ("view RUN -n 100000000000", "number: expected images that fit into"),
        ("sample RUN --seed -1", "seed: expected at least 0, got -1"),
        ("sample RUN --out samples.gif", "out: expected a name that ends in .png"),
        ("sample RUN --labels 1", "labels: expected none for this model"),
        ("sample RUN --device tpu", "device: expected auto, cpu or cuda, got 'tpu'"),
        ("sample nowhere", "no such checkpoint"),
        ("sample", "RUN"),
        ("view RUN --what kl,colours", "what: expected all, or some of samples, drawing"),
        ("view RUN --split all", "split: expected train, validation or test"),
        ("view RUN -n 0", "number: expected at least 1, got 0"),
        ("view RUN --what kl --data nothing", "data: expected digits"),
        ("view nowhere", "no such checkpoint"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], run: str, args: str, words: str) -> None:
    assert words in mistake(capsys, *args.replace("RUN", run).split())
    assert not (Path(run) / "view").exists()


def test_images_of_another_shape_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = checkpoint(tmp_path / "run", fastdraw.DRAW(**{**DRAW, "image_shape": (1, 12, 12)}))
    words = "data: expected images of 1x12x12"
    assert words in mistake(capsys, "view", run, "--what", "kl")
    assert "got 1x28x28" in mistake(capsys, "view", run, "--what", "kl")


def test_a_missing_package_is_one_line(
    capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, what in (("matplotlib.figure", "kl"), ("av", "drawing")):
        monkeypatch.setitem(sys.modules, module, None)
        words = mistake(capsys, "view", run, "--what", what, "-n", "2", "--out", str(tmp_path))
        assert words == f'fastdraw: error: {module.partition(".")[0]} is not installed: pip install "fastdraw-torch[train]"\n'


def test_any_number_of_samples_in_files(
    capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in parts as they are drawn: the same in both, the first of them in the picture."""
    monkeypatch.setattr(pictures, "CHUNK", 4)
    monkeypatch.setattr(saving, "SHOWN", 6)
    out = tmp_path / "some.png"
    paths = said(capsys, "sample", run, "-n", "11", "--npz", "--pngs", "--out", str(out))
    assert [path.name for path in paths] == ["some.png", "some.npz", "some"]
    images = np.load(tmp_path / "some.npz")["images"]
    np.testing.assert_array_equal(images, pictures.draw(load_model(run), 11, 0).numpy())
    files = sorted((tmp_path / "some").iterdir())
    assert [file.name for file in files] == [f"{i:06}.png" for i in range(11)]
    for file, image in zip(files, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.rint(image[0] * 255).astype(np.uint8))
    # Three columns of two rows.
    assert Image.open(out).size == (3 * 116 + 4, 2 * 116 + 4)
    # Nothing else lies there, and nothing of somebody's is replaced.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "some", "some.npz", "some.png"]
    assert "out: expected no file, or an empty folder" in mistake(capsys, "sample", run, "--pngs", "--out", str(out))


@pytest.mark.parametrize("kind", ["npz", "pngs"])
def test_a_full_disk_leaves_no_half_file(kind: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CHUNK", 4)
    drawn = pictures.drawn

    def full(*args: Any) -> Any:
        for i, part in enumerate(drawn(*args)):
            if i == 2:
                raise OSError(28, "No space left on device", "hidden")
            yield part

    monkeypatch.setattr(pictures, "drawn", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/some"):
        list(saving.save_samples(run, tmp_path / "some.png", 11, **{kind: True}))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_plain_samples_past_the_picture_are_not_drawn(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    draw = pictures.drawn
    monkeypatch.setattr(pictures, "drawn", lambda model, count, *rest: counts.append(count) or draw(model, count, *rest))
    monkeypatch.setattr(saving, "SHOWN", 5)
    list(saving.save_samples(run, tmp_path / "some.png", 1000))
    assert counts == [5]
