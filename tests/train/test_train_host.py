"""An epoch of training never waits for the device: nothing that it computes is read by the host before a line is written.

On a CPU reading costs nothing, so it is refused here instead: by name where Python asks for a value, and by operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from training import SMALL, Quiet, assert_same_run, run

from fastdraw.runs.parallel import Processes
from fastdraw.runs.signals import Interruptions
from fastdraw.train import DivergedError, TrainOptions
from fastdraw.train import loop as loop_module
from fastdraw.train.setup import prepare


class HostRead(AssertionError):
    """What on CUDA would have waited."""


#: Methods of a tensor that give the host its values, or that cannot size their result without them.
READS = ("item", "tolist", "numpy", "cpu", "nonzero", "unique", "masked_select", "argwhere")
READS += tuple(f"__{name}__" for name in ("bool", "float", "int", "index", "array", "contains"))
#: Operators that do the same from inside others.
OPERATORS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "repeat_interleave")


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in READS:
            raise HostRead(function.__name__)
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        mask = name.startswith("index") and any(
            isinstance(at, torch.Tensor) and at.dtype in (torch.bool, torch.uint8) for at in (args[1:2] and args[1]) or ()
        )
        if name in OPERATORS or mask:
            raise HostRead(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def no_reads() -> Iterator[None]:
    with ExitStack() as modes:
        modes.enter_context(_Functions())
        modes.enter_context(_Operators())
        yield


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.item(),
        lambda x: x[None].tolist(),
        lambda x: float(x),
        lambda x: bool(x > 0),
        lambda x: x.cpu(),
        lambda x: torch.ones(3)[torch.ones(3) > x],
        lambda x: torch.equal(x, x),
        lambda x: torch.nn.functional.one_hot(x[None].long()),
    ],
)
def test_reads_are_refused(read: Any) -> None:
    x = torch.tensor(2.0)
    with no_reads(), pytest.raises(HostRead):
        read(x)


def small(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> loop_module.Run:
    """A run as CUDA would have it: no look at images, and no look at a step's figures."""
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "0")
    made = loop_module.Run(prepare(TrainOptions(**{**SMALL, **changes, "out": str(folder)}), None, Processes(None)), Quiet())
    made.reads_every_step = False
    return made


#: Every kind of batch and of step: binarised digits with an average and a schedule, classes, pictures made anew, random crops.
KINDS: list[dict[str, Any]] = [
    {"ema": 0.9, "schedule": "cosine", "warmup_steps": 5, "precision": "bf16"},
    {"task": "classify", "read_size": "4", "write_size": None, "latent_size": None},
    {"conditional": True},
    {"data": "two-digits"},
    {"data": "svhn", "batch_size": 5},
]


@contextmanager
def no_waiting() -> Iterator[None]:
    """With the device itself as the witness: torch refuses whatever would synchronise."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("changes", KINDS, ids=["average", "classes", "conditional", "composed", "crops"])
def test_an_epoch_reads_nothing(changes: dict[str, Any], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "data" in changes:
        made_small(monkeypatch)
    seldom = {"epochs": 2, "log_every": 10**6, "checkpoint_every": 10**6}
    of = small(tmp_path / "run", monkeypatch, **seldom, device=device, **changes)
    per_epoch = of.batch.steps_per_epoch
    # The first step builds what later ones use; it is not of the epoch that is watched.
    while of.progress.step < per_epoch:
        of.step()
    with no_reads() if device == "cpu" else no_waiting():
        while of.progress.step < 2 * per_epoch:
            of._check(Interruptions())
            of.step()
    assert of.sums.isfinite().all()
    assert of.progress.count == 2 * per_epoch
    of.close()


def made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets that are put together on the device, from a few pictures of noise."""
    from fastdraw import data
    from fastdraw.data.composed import TWO_DIGITS, Composer
    from fastdraw.data.crops import RandomCrops

    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)

    def load(name: str, *args: Any, **kwargs: Any) -> data.Splits:
        if name == "svhn":
            return data.Splits(noise(20, 3, 64, 64), noise(2, 3, 54, 54), noise(2, 3, 54, 54), name, None, RandomCrops(54))
        digits = noise(100, 1, 28, 28)
        return data.Splits(digits, noise(2, 1, 60, 60), noise(2, 1, 60, 60), name, None, Composer(TWO_DIGITS, digits))

    monkeypatch.setattr(data, "load", load)


def test_a_line_of_metrics_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch sees what the loop does: a line is due after five steps."""
    of = small(tmp_path / "run", monkeypatch, log_every=5)
    with no_reads():
        for _ in range(4):
            of.step()
        with pytest.raises(HostRead):
            of.step()
    of.close()


def test_nan_is_found_late_and_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spoilt at step 8, told when the line of step 20 is due; the checkpoint is the one from before."""
    of = small(tmp_path / "run", monkeypatch, log_every=20, checkpoint_every=10**6)
    of.save()
    for step in range(19):
        if step == 8:
            with torch.no_grad():
                of.model.patch.weight.fill_(float("nan"))
        of.step()
    with pytest.raises(DivergedError, match="the checkpoint of step 0"):
        of.save()
    with pytest.raises(DivergedError, match="the checkpoint of step 0"):
        of.step()
    of.close()


def test_late_reads_change_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop_module.Run.__init__

    def late(self: Any, *args: Any) -> None:
        original(self, *args)
        self.reads_every_step = False

    monkeypatch.setattr(loop_module.Run, "__init__", late)
    run(tmp_path / "run", steps=70)
    assert_same_run(whole, tmp_path / "run")
