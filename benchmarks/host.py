"""What one launch costs the host: microseconds from a piece's call to its return, with a driver that runs nothing.

    python -m benchmarks.host [--turns N]

"kept" is a launch by its handle (kernels/triton/handles.py), "triton" the same by Triton's own way. Processor time, medians of
turns that alternate, on tensors of the CPU. The driver's own part, a few microseconds of CUDA, is in neither.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

import fastdraw

#: Calls of one piece in one turn.
CALLS = 200


def called(batch: int = 128) -> list[tuple[str, Callable[..., bool], tuple[Any, ...]]]:
    """Every different launch of a training step at the paper's MNIST setting: launcher and arguments."""
    from fastdraw.kernels.triton import handles, pieces

    found: dict[Any, tuple[str, Callable[..., bool], tuple[Any, ...]]] = {}

    def noting(launcher: Any, *arguments: Any) -> bool:
        described: list[Any] = [launcher]
        handles._describe(arguments, described, [])
        found.setdefault(tuple(described), (launcher.__name__, launcher, arguments))
        return handles.launched(launcher, *arguments)

    model = fastdraw.DRAW.from_config(fastdraw.presets["mnist"])
    with mock.patch.object(pieces, "launched", noting), torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(batch, 1, 28, 28)).loss.backward()
    return list(found.values())


def micros(call: Callable[[], Any]) -> float:
    begin = time.process_time()
    for _ in range(CALLS):
        call()
    return 1e6 * (time.process_time() - begin) / CALLS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args(arguments).turns
    from benchmarks.recording_driver import recording
    from fastdraw.kernels.triton import handles
    from fastdraw.kernels.triton.launch import run

    with recording(None):
        print(f"{'launch':<28}{'kept':>8}{'triton':>8}  us a launch, medians of {turns} turns of {CALLS}")
        for name, launcher, given in called():
            ways: dict[str, Callable[[], Any]] = {
                "kept": lambda launcher=launcher, given=given: handles.launched(launcher, *given),
                "triton": lambda launcher=launcher, given=given: run(launcher(*given)),
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(turns):
                for way, call in ways.items():
                    times[way].append(micros(call))
            figures = "".join(f"{statistics.median(each):>8.1f}" for each in times.values())
            print(f"{name.removesuffix('_launch'):<28}{figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
