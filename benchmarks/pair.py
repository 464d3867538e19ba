"""Two versions of fastdraw in turns, each in a process of its own: is the new one faster, and in what?

    python -m benchmarks.pair OLD [NEW] [--only TEXT ...] [--turns 9] [--threads 1] [--python PYTHON]

OLD and NEW are commits of this repository, folders with a checkout, or `eager`, which is fastdraw.reference of the other one.
NEW is this checkout as it stands unless something else is said. Each is installed into a folder that goes away afterwards, its
C++ kernels built; that takes a minute each.

Both processes are asked for the same case, one after the other, the first one last at every other turn. The figure is the
median over the turns of new / old, with its quartiles. One thread's processor time is taken, which other programs change
little; of more threads it is wall clock, for an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Seconds of one turn of a case at least.
TURN = 0.02
Step = Callable[[], Any]


# In a process of one version, which may be an old one: nothing but torch and that version's public names is used below.
def model_step(batch: int, autocast: bool = False, adam: bool = False, **changes: Any) -> Callable[[Any], Step]:
    def make(kinds: Any) -> Step:
        import dataclasses

        import torch

        import fastdraw

        model = kinds.DRAW.from_config(dataclasses.replace(fastdraw.presets["mnist"], **changes))
        x, optimizer = (torch.rand(batch, 1, 28, 28) > 0.5).float(), torch.optim.Adam(model.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = model(x).loss
            loss.backward()
            if adam:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
                optimizer.step()

        return step

    return make


def sampling(batch: int) -> Callable[[Any], Step]:
    def make(kinds: Any) -> Step:
        import fastdraw

        model = kinds.DRAW.from_config(fastdraw.presets["mnist"])
        return lambda: model.sample(batch)

    return make


def glimpse(
    operator: str, batch: int, size: int, side: int, channels: int = 1, share: float = 1.0, gradient: bool = True
) -> Callable[[Any], Step]:
    def make(kinds: Any) -> Step:
        import math

        import torch

        # A window of that share of the side, its sigma half of the filters' distance.
        params = 0.1 * torch.randn(batch, 5)
        if share < 1:
            params[:, 2:4] = torch.tensor([2 * math.log(share * (side - 1) / (size - 1) / 2), math.log(share)])
        params.requires_grad_(gradient)
        given = torch.rand(batch, channels, *((side, side) if operator == "read" else (size, size)))
        function = getattr(kinds, operator)

        def step() -> None:
            out = function(given, params, size if operator == "read" else (side, side))
            if gradient:
                torch.autograd.grad(out, params, torch.ones_like(out))

        return step

    return make


def lstm(kinds: Any) -> Step:
    import torch

    x, h, c = (torch.randn(128, size) for size in (264, 256, 256))
    weights = [torch.randn(shape, requires_grad=True) for shape in ((1024, 264), (1024, 256), (1024,), (1024,))]

    def step() -> None:
        h_new, c_new = kinds.lstm_step(x, (h, c), *weights)
        torch.autograd.grad(h_new.sum() + c_new.sum(), weights)

    return step


CASES: dict[str, Callable[[Any], Step]] = {
    "step B=128": model_step(128),
    "step B=128 bfloat16": model_step(128, autocast=True),
    "step B=128 with Adam": model_step(128, adam=True),
    "step B=1": model_step(1),
    "step B=8": model_step(8),
    "step B=16": model_step(16),
    "step B=128 T=32 without attention": model_step(128, glimpses=32, read_size=None, write_size=None),
    "sample 1": sampling(1),
    "sample 128": sampling(128),
    "read 1x1x28x28 N=5 alone": glimpse("read", 1, 5, 28, gradient=False),
    "read 128x1x28x28 N=5": glimpse("read", 128, 5, 28),
    "write 128x1x28x28 N=5": glimpse("write", 128, 5, 28),
    "read 4x3x1024x1024 N=32 a quarter": glimpse("read", 4, 32, 1024, 3, 0.25),
    "read 128x1x100x100 N=12 a quarter": glimpse("read", 128, 12, 100, 1, 0.25),
    "read 1x3x4096x4096 N=64 a tenth": glimpse("read", 1, 64, 4096, 3, 0.1),
    "lstm_step 128": lstm,
}


def answer(kind: str, threads: int) -> None:
    """Cases are named on standard input, a line each; seconds of a call go back, or what went wrong."""
    # The folder of this file is none of the version's.
    sys.path.pop(0)
    import torch

    import fastdraw
    from fastdraw import reference

    if not Path(fastdraw.__file__).is_relative_to(Path.cwd()):
        raise RuntimeError(f"expected the version in {Path.cwd()}, got {fastdraw.__file__}")
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    made: dict[str, tuple[Step, int]] = {}
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in made:
                torch.manual_seed(0)
                step = CASES[name](reference if kind == "eager" else fastdraw)
                step()
                start = clock()
                step()
                made[name] = step, max(1, round(TURN / max(clock() - start, 1e-9)))
            step, calls = made[name]
            # What the other cases left in caches and allocators is not this one's own.
            step()
            start = clock()
            for _ in range(calls):
                step()
            print((clock() - start) / calls, flush=True)
        except Exception as error:
            print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)


class Side:
    """One version at work."""

    def __init__(self, kind: str, site: Path, threads: int, python: str) -> None:
        command = [python, str(Path(__file__).resolve()), "--answer", kind, "--threads", str(threads)]
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, env=environment, cwd=site, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, case: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(case, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            # It died of an earlier case.
            return ""
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        # What a process that died was not told is of no use to it.
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def install(version: str, folder: Path, python: str) -> Path:
    """A commit, or a folder with a checkout, as packages in a folder of their own."""
    from benchmarks.checkout import ROOT

    source, site = Path(version).expanduser(), folder / "site"
    if not (source / "setup.py").exists():
        source = folder / "source"
        source.mkdir()
        archive = subprocess.run(["git", "-C", ROOT, "archive", version], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    options = ("-q", "--no-deps", "--no-build-isolation", "--target", str(site))
    subprocess.run([python, "-m", "pip", "install", *options, str(source.resolve())], check=True)
    return site


def race(sides: list[Side], names: list[str], turns: int) -> None:
    print(f"{'':36s} {'old':>12s} {'new':>12s}   new / old, and its quartiles")
    for name in names:
        seconds: list[list[float]] = [[], []]
        problem = ""
        for turn in range(turns):
            for i in (0, 1) if turn % 2 == 0 else (1, 0):
                said = sides[i].ask(name)
                try:
                    seconds[i].append(float(said))
                except ValueError:
                    problem = said or "the process ended"
            if problem:
                break
        if problem:
            print(f"{name:36s} not measured: {problem}", flush=True)
            continue
        old, new = (statistics.median(each) * 1e3 for each in seconds)
        ratios = [b / a for a, b in zip(*seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if turns > 1 else ratios * 3
        print(f"{name:36s} {old:9.4g} ms {new:9.4g} ms   {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("old", nargs="?", help="a commit, a folder with a checkout, or eager")
    parser.add_argument("new", nargs="?", help="the same; this checkout by default")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="cases whose name holds one of these")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="that has torch, pip and setuptools")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer, options.threads)
        return 0
    names = [name for name in CASES if any(text in name for text in options.only)]
    if options.old is None or not names or options.turns < 1 or options.threads < 1:
        parser.error(f"expected OLD, cases among {', '.join(CASES)}, and turns and threads of at least 1")
    from benchmarks.checkout import ROOT

    versions = [options.old, options.new or str(ROOT)]
    if versions == ["eager", "eager"]:
        parser.error("old and new: expected one version at least, got eager twice")
    with tempfile.TemporaryDirectory(prefix="pair-") as folder:
        sites: dict[str, Path] = {}
        for version in dict.fromkeys(versions):
            if version != "eager":
                place = Path(folder, str(len(sites)))
                place.mkdir()
                sites[version] = install(version, place, options.python)
        any_site = next(iter(sites.values()))
        sides = [Side(version, sites.get(version, any_site), options.threads, options.python) for version in versions]
        try:
            race(sides, names, options.turns)
        finally:
            for side in sides:
                side.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
