"""A run's folder: one owner at a time; an old run stays whole until a new one takes its place; other programs' files stay."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import mistake
from training import run, wait_until

from fastdraw.cli import main
from fastdraw.runs.checkpoint import NAME
from fastdraw.train import Interrupted, load_checkpoint
from fastdraw.train import loop as loop_module


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder, steps=29, patience=9)
    assert {NAME, "best.safetensors", "metrics.jsonl", "config.json", "samples.png", "drawing.gif"} < set(content(folder))
    return folder


@pytest.fixture
def old(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


#: Each found at another place.
MISTAKES = [
    ["--data", "digitz"],
    ["--data-dir", "nowhere", "--data", "mnist"],
    ["--data", "digits", "--batch-size", "5000"],
    ["--data", "digits", "--device", "gpu"],
    ["--data", "digits", "--steps", "many"],
    ["--data", "digits", "--task", "classify", "--write-size", "3"],
    ["--data", "digits", "--resume"],
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=" ".join)
def test_a_mistake_leaves_the_old_run_whole(
    old: Path, mistake: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = content(old)
    assert main(["train", "--out", str(old), "--overwrite", "--threads", "1", *mistake]) == 2
    assert content(old) == before
    # Nor is a folder made for it.
    assert main(["train", "--out", "new", "--threads", "1", *mistake]) == 2
    assert not Path("new").exists()


def test_a_failure_before_the_first_checkpoint_leaves_the_old_run_whole(old: Path, no_space: Any) -> None:
    before = content(old)
    no_space()
    with pytest.raises(OSError, match="No space left"):
        run(old, overwrite=True, hidden_size=8)
    assert content(old) == before


def test_a_new_run_takes_the_place_of_the_whole_old_one(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after its first checkpoint, before the rest was taken away, it goes on without what is not its own."""
    (old / "notes.txt").write_text("mine")
    (old / "events.out.tfevents.0.other").write_text("another program's")

    def killed(folder: Path) -> None:
        raise Interrupted(9)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "clear", killed)
        with pytest.raises(Interrupted):
            run(old, overwrite=True, hidden_size=8, steps=2)
    assert load_checkpoint(old).config.hidden_size == 8
    assert (old / "best.safetensors").exists()
    result = run(old, resume=True, skip_test=True, steps=1)
    assert result.step == 1
    left = content(old)
    assert not {"best.safetensors", "drawing.gif"} & set(left)
    assert left["notes.txt"] == b"mine"
    assert left["events.out.tfevents.0.other"] == b"another program's"
    assert sum("tfevents" in name for name in left) == 2
    lines = [json.loads(line) for line in left["metrics.jsonl"].splitlines()]
    assert {line["step"] for line in lines} == {1}


FOREIGN: dict[str, dict[str, str]] = {
    "a transformer": {"config.json": '{"model_type": "bert"}', "samples.png": "theirs"},
    "a picture": {"drawing.gif": "theirs"},
    "a diffuser": {NAME: "theirs", "metrics.jsonl": "theirs"},
    "a list": {"config.json": "[]", "best.safetensors": "theirs"},
    "nested": {"config.json": "[" * 100_000},
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("overwrite", [True, False])
def test_files_of_other_programs_are_not_replaced(tmp_path: Path, name: str, overwrite: bool) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for file, text in FOREIGN[name].items():
        (folder / file).write_text(text)
    with pytest.raises(ValueError, match=r"out: expected a folder with a run or without such files, got .* of something else"):
        run(folder, overwrite=overwrite, steps=1)
    assert content(folder) == {file: text.encode() for file, text in FOREIGN[name].items()}


def test_a_run_whose_checkpoint_is_damaged_can_be_overwritten(old: Path) -> None:
    (old / NAME).write_bytes((old / NAME).read_bytes()[:1000])
    assert run(old, overwrite=True, steps=1).step == 1


def test_two_runs_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the second one is told, it says one line and touches nothing; the first one never notices."""
    ready, go = threading.Event(), threading.Event()
    original, results = loop_module.Run.step, []

    def step(self: Any) -> None:
        ready.set()
        assert go.wait(60)
        original(self)

    monkeypatch.setattr(loop_module.Run, "step", step)
    folder = tmp_path / "run"
    first = threading.Thread(target=lambda: results.append(run(folder, steps=3)))
    first.start()
    wait_until(ready.is_set)
    before = content(folder)
    for more in ([], ["--resume"], ["--overwrite"]):
        error = mistake(capsys, "train", "--data", "digits", "--threads", "1", "--out", str(folder), *more)
        assert f"--out: expected a folder in which nothing else trains, got {folder}: process " in error
    assert content(folder) == before
    go.set()
    first.join()
    assert results[0].step == 3
    assert run(folder, resume=True, steps=4).step == 4
    assert not (folder / ".lock").exists()
