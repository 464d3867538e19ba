"""What every test runs under: uninitialised memory is NaN, one torch thread a worker, and the backends of this machine."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from levels import levels

import fastdraw
from fastdraw import env
from fastdraw.kernels import cpu
from fastdraw.kernels.cpu import pieces

#: sm_80 or sm_90: Triton's kernels run in the emulator of these tests (emulator/), for CPU tensors.
EMULATED = os.environ.get("FASTDRAW_EMULATE", "")
#: "3/24": of the tests of Triton's kernels one in 24; others with "4/24", and all of them with 24 such.
TURN = os.environ.get("FASTDRAW_TURN", "")
if EMULATED:
    from emulator import device as emulated_device

    emulated_device.stand_for(EMULATED)
    # One launch after another of a kernel takes the next of these orders of warps; machine.ORDERS has them.
    emulated_device.Settings.orders = tuple(os.environ.get("FASTDRAW_EMULATE_ORDERS", "together").split(","))

# What tests prepare is kept with the tests.
os.environ.setdefault("FASTDRAW_CACHE", tempfile.mkdtemp(prefix="fastdraw-cache-"))

#: The tests of Triton kernels need a CUDA device, or a process of their own in Triton's interpreter (make test starts one).
TRITON_TESTS = [f"kernels/test_triton_{name}.py" for name in ("kernels", "large", "pieces", "recurrence", "classifier")]
collect_ignore = [] if fastdraw.backends()["triton"] is None else TRITON_TESTS


class Torch:
    """torch's numbers, for hypothesis: an example draws the same ones whenever it is run."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH = Torch()
if importlib.util.find_spec("hypothesis") is not None:
    import hypothesis

    hypothesis.register_random(TORCH)
    # The same examples each time, so that a red test is the change's; --hypothesis-profile=explore draws others.
    hypothesis.settings.register_profile("same", derandomize=True)
    hypothesis.settings.register_profile("explore", derandomize=False, print_blob=True)
    hypothesis.settings.load_profile("same")


def lower_levels() -> list[int]:
    """The instruction sets of the C++ kernels that this machine has, but for the one that they run on by themselves."""
    if fastdraw.backends()["native"] is not None or env.level() is not None:
        return []
    return levels()[:-1]


KERNELS = [name for name, reason in fastdraw.backends().items() if reason is None and name != "reference"]


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What a worker of xdist has emulated."""
    if EMULATED:
        emulated_device.Counts.add(*getattr(node, "workeroutput", {}).get("emulated", (0, 0)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if EMULATED and output is not None:
        counts = emulated_device.Counts
        output["emulated"] = (counts.launches, counts.instructions)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if EMULATED:
        terminalreporter.write_line(f"{EMULATED}: {emulated_device.Counts.text()}")


def in_turn(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests whose turn it is; the paper's MNIST canvas and sums of many rows always."""
    always = ("28, 28, 2, 5", "over_many_rows")
    turn, turns = (int(number) for number in TURN.split("/"))
    # Shuffled once and for all: parameters that change fastest would have the same value in every 24th.
    order = random.Random(0).sample(range(len(items)), len(items))
    own = set(order[turn % turns :: turns])
    return [one for i, one in enumerate(items) if i in own or any(name in one.name for name in always)]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = () if torch.cuda.is_available() else ("gpu",) if EMULATED else ("gpu", "compiled")
    kept = [item for item in items if not any(item.get_closest_marker(name) for name in elsewhere)]
    if TURN:
        kept = in_turn(kept)
    config.hook.pytest_deselected(items=list(set(items) - set(kept)))
    items[:] = kept


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        # Tests that do not ask for a device keep their tensors on the CPU; DRAW on CUDA is in test_gpu_models.py.
        on_cpu = "device" not in metafunc.fixturenames and not env.triton_interpreted() and not EMULATED
        names = [name for name in KERNELS if not (on_cpu and name == "triton")]
        if metafunc.definition.get_closest_marker("levels") and "native" in names:
            names += [f"native-{level}" for level in lower_levels()]
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each backend this machine has, in turn, in force during the test; of tests marked `levels`, also the native one on each
    lower instruction set."""
    name, _, level = request.param.partition("-")
    if level:
        chosen, chosen_pieces = cpu.kernels, pieces.functions
        monkeypatch.setattr(cpu, "kernels", lambda dtype: chosen(dtype, int(level)))
        monkeypatch.setattr(pieces, "functions", lambda dtype: chosen_pieces(dtype, int(level)))
    with fastdraw.backend(name):
        yield name


@pytest.fixture
def device(backend: str) -> str:
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def poisoned_memory():
    """torch.empty gives NaN, so that an element nobody wrote shows up in a result."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def own_tables():
    """Tests change tables of block sizes, by which kept launches were made."""
    yield
    handles = sys.modules.get("fastdraw.kernels.triton.handles")
    if handles is not None:
        handles.forget()


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """torch.compile counts the versions of a function over all models of a process, and refuses the ninth."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Runs of training set torch's number of threads; other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 70 uninterrupted steps of `training.SMALL`."""
    from training import run

    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, steps=70)
    return folder


@pytest.fixture(scope="session")
def forge() -> Iterator[Any]:
    """Processes that start at once, of one that has imported everything: helpers/forge.py."""
    from forge import Forge

    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture
def no_space(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a function fail as on a full disk, by default the one that has data written: from its `after`-th call on."""

    def fails(target: Any = os, name: str = "fsync", after: int = 1) -> None:
        original, calls = getattr(target, name), itertools.count(1)

        def full(*args: Any) -> Any:
            if next(calls) >= after:
                raise OSError(28, "No space left on device")
            return original(*args)

        monkeypatch.setattr(target, name, full)

    return fails
