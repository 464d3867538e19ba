"""evaluate, sample and view started by torchrun: the work is shared, and told once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forge import Forge
from training import run

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


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
    first, *others = together(forge, tmp_path, ["view", str(tmp_path / "run"), "--what", "samples"])
    assert first.split() == [str(tmp_path / "run" / "view" / "samples.png")]
    assert not any(others)
