"""evaluate, sample and view started by torchrun: the work is shared, and told once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datafiles import pixels
from forge import Forge
from training import arguments, records, run

from fastdraw.evaluation import Likelihood, evaluate_run

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")


def together(forge: Forge, folder: Path, args: list[str], count: int = 3) -> list[str]:
    """What each process says."""
    started = forge.together(args, folder / "log", count)
    codes = [forge.wait(process) for process in started]
    said = [(folder / f"log.{rank}").read_text() for rank in range(count)]
    assert codes == [0] * count, said
    return said


@pytest.mark.parametrize("task", ["draw", "classify"])
def test_the_figures_are_those_of_one_process(forge: Forge, tmp_path: Path, task: str) -> None:
    changes = {} if task == "draw" else {"task": "classify", "latent_size": None, "write_size": None}
    run(tmp_path / "run", steps=2, skip_test=True, **changes)
    more = ["-k", "3"] if task == "draw" else []
    args = ["evaluate", str(tmp_path / "run"), "--batch", "40", *more, "--json"]
    first, *others = together(forge, tmp_path, [*args, str(tmp_path / "three.json")])
    assert "180 test images of digits" in first
    assert others == ["", ""]
    assert forge.wait(forge.start([*args, str(tmp_path / "one.json")], tmp_path / "log")) == 0
    # Bit for bit: the same batches, put together in their order.
    assert (tmp_path / "three.json").read_text() == (tmp_path / "one.json").read_text()


def test_samples_are_those_of_one_process(forge: Forge, tmp_path: Path) -> None:
    run(tmp_path / "run", steps=2, skip_test=True)
    for name, count in (("three", 3), ("one", 1)):
        args = ["sample", str(tmp_path / "run"), "-n", "1100", "--npz", "--out", str(tmp_path / f"{name}.png")]
        first, *others = together(forge, tmp_path, args, count)
        assert first.split() == [str(tmp_path / f"{name}.png"), str(tmp_path / f"{name}.npz")]
        assert not any(others)
    np.testing.assert_array_equal(*(np.load(tmp_path / f"{name}.npz")["images"] for name in ("three", "one")))
    assert (tmp_path / "three.png").read_bytes() == (tmp_path / "one.png").read_bytes()


def test_pictures_are_those_of_one_process(forge: Forge, tmp_path: Path) -> None:
    """Of those that are shared, and of those that the first process draws alone."""
    run(tmp_path / "run", steps=2, skip_test=True)
    names = ["samples", "reconstructions", "kl"]
    for name, count in (("three", 3), ("one", 1)):
        args = ["view", str(tmp_path / "run"), "--what", ",".join(names), "-n", "600", "--out", str(tmp_path / name)]
        first, *others = together(forge, tmp_path, args, count)
        assert first.split() == [str(tmp_path / name / f"{each}.png") for each in names]
        assert not any(others)
    for each in names:
        assert (tmp_path / "three" / f"{each}.png").read_bytes() == (tmp_path / "one" / f"{each}.png").read_bytes()


#: `fastdraw ARGS`, and at its end how many batches this process evaluated.
COUNTING = """
import sys
from fastdraw import evaluation
from fastdraw.cli import main
batches, inner = 0, evaluation.bound._pass
def counted(*args):
    global batches
    batches += 1
    return inner(*args)
evaluation.bound._pass = counted
assert main(sys.argv[1:]) == 0
print(f"{batches} batches")
"""


def test_training_shares_its_own_evaluations(forge: Forge, tmp_path: Path) -> None:
    """And tells what `evaluate` tells of the same weights, in one process."""
    (tmp_path / "counting.py").write_text(COUNTING)
    args = arguments(tmp_path / "run", steps=3, eval_batch=40, patience=9)
    started = forge.together([str(tmp_path / "counting.py"), *args], tmp_path / "log", script=True)
    said = [(tmp_path / f"log.{rank}").read_text() for rank in (0, 1) if not forge.wait(started[rank])]
    # Of 180 images each, twice: 5 batches, of which the first process has 3.
    assert [lines.splitlines()[-1] for lines in said] == ["6 batches", "4 batches"]
    for record in records(tmp_path / "run")[-2:]:
        told = evaluate_run(tmp_path / "run", split=record["split"], batch_size=40).result
        assert isinstance(told, Likelihood)
        assert (told.bound.mean, told.bound.standard_error) == (record["nats"], record["standard_error"])


@pytest.mark.parametrize("command", ["evaluate", "view"])
def test_a_process_that_differs_is_named(forge: Forge, tmp_path: Path, command: str) -> None:
    run(tmp_path / "run", steps=2, skip_test=True)
    np.savez(tmp_path / "other.npz", **{part: pixels(30, 28, 28) for part in ("train", "validation", "test")})
    args = [command, str(tmp_path / "run"), "--data"]
    started = forge.different([[*args, "digits"], [*args, str(tmp_path / "other.npz")]], tmp_path / "log")
    assert [forge.wait(process) for process in started] == [2, 2]
    last = (tmp_path / "log.1").read_text().splitlines()[-1]
    assert "--data: expected the same in all processes of this run" in last
    assert "in process 1 on " in last
