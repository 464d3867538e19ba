"""`python -m benchmarks.choices [PATH]`: a training step under the other choices that the Triton pieces could have made.

Whether kernels are launched as dependents of each other, and where a product goes to torch instead of a kernel with what
follows it: each is switched for a whole step, which is captured, proven against the step as it is, and timed in turns with it.
So what a choice gains is seen where it counts. Writes the figures as JSON, or prints them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import checkout

checkout.activate()

from benchmarks import models, steps  # noqa: E402
from benchmarks.cases import DEVICE, fastdraw_backends  # noqa: E402
from fastdraw.config import DRAWConfig  # noqa: E402
from fastdraw.profile import peers  # noqa: E402
from fastdraw.profile.figures import row, time_text  # noqa: E402
from fastdraw.profile.timing import Runner, runner  # noqa: E402

#: Batch and precision of the steps.
SETTINGS = [(128, "bfloat16"), (128, "tf32"), (128, "float32"), (512, "bfloat16"), (2048, "bfloat16")]
TURNS = 15
#: How far results may be from those of the step as it is: products of other tiles, or of a library, round otherwise.
SAME = {"bfloat16": 2e-2, "float16": 2e-2, "tf32": 1e-2, "float32": 1e-3}


def _no_dependents() -> AbstractContextManager[Any]:
    from fastdraw.kernels.triton import launch

    return mock.patch.object(launch, "dependent", return_value=False)


def _fused_up_to(limit: float) -> AbstractContextManager[Any]:
    from fastdraw.kernels.triton import piece_tables

    return mock.patch.dict(piece_tables.FUSED_LIMIT, dict.fromkeys(piece_tables.FUSED_LIMIT, limit))


#: By name: what is in force while a step is captured.
CHOICES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "as it is": nullcontext,
    "no dependent launches": _no_dependents,
    "every product by torch": lambda: _fused_up_to(0),
    "every product in a kernel": lambda: _fused_up_to(float("inf")),
}


def measure(config: DRAWConfig, batch: int, precision: str, choices: dict[str, Any] = CHOICES) -> list[dict[str, Any]]:
    """A row for each choice, the step as it is first."""
    problem = models.Problem(config, batch)
    runners: dict[str, Runner] = {}
    problems: dict[str, str] = {}
    expected: list[Any] = []
    for name, choice in choices.items():
        variant = steps.graphed(problem, name, steps.own, precision, fastdraw_backends()[0])
        try:
            with choice(), variant.in_force():
                # Captured here: what is in force later has no say.
                found = [result.clone() for result in variant.step(0)]
            expected = expected or found
            off = max(peers.difference(one, other) for one, other in zip(found, expected, strict=True))
            if not off <= SAME[precision]:
                problems[name] = f"its results are {off:.2g} off"
                continue
            runners[name] = runner(variant, 1, DEVICE)
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {error}"[:160]
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(TURNS):
        for name, one in runners.items():
            times[name].append(one.turn())
    return [row(name, times.get(name, []), note=problems.get(name, "")) for name in choices]


def lines(title: str, rows: list[dict[str, Any]]) -> list[str]:
    first = rows[0]["median"]
    found = [title]
    for r in rows:
        if r["median"] is None:
            found.append(f"  {r['name']:<28} not measured: {r['note']}")
            continue
        ratio = f"{first / r['median']:.3f}x" if first else ""
        found.append(f"  {r['name']:<28} {time_text(r['median']):>9}  {ratio}")
    return found


def main(path: str | None = None) -> int:
    if DEVICE != "cuda":
        print("choices of the Triton pieces need a CUDA device", file=sys.stderr)
        return 2
    found = {}
    for batch, precision in SETTINGS:
        title = f"step of DRAW MNIST {batch}, {precision}"
        found[title] = measure(models.mnist(), batch, precision)
        print(*lines(title, found[title]), sep="\n", flush=True)
        if path is not None:
            Path(path).write_text(json.dumps(found, indent=1))
    return 1 if any(r["median"] is None for rows in found.values() for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
