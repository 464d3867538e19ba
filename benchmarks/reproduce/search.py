"""Short controlled comparisons of settings: the same number of images for each, or the same time of the CPU, judged by the
validation images alone.

    python -m benchmarks.reproduce.search --images 300000 --log docs/results/search.jsonl \\
        --base data=binarized-mnist data_dir=DATA glimpses=8 precision=bf16 ema=0.999 \\
        -- base cosine:schedule=cosine cosine-2e-3:schedule=cosine,learning_rate=2e-3

What is varied comes last: NAME:OPTION=VALUE,..., options being those of `fastdraw train`. `--cpu-seconds` in place of
`--images` counts what this process computes in training, all its threads together, so that other programs matter little. Each
run appends one line of JSON to the log. Variants whose name and seed the log has already are left out, so an interrupted
search goes on by the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import checkout, environment
from benchmarks.reproduce.settings import options_of
from fastdraw.cli import guarded
from fastdraw.evaluation import evaluate_run
from fastdraw.runs.checkpoint import load_checkpoint
from fastdraw.train import Interrupted, TrainOptions, train
from fastdraw.train.display import Display


class Clock(Display):
    """Ends training after so many seconds of the CPU, evaluations among them; None: never."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self.seconds, self.used = seconds, 0.0

    def start(self, step: int, total: int) -> None:
        super().start(step, total)
        self._began = time.process_time()

    def step(self, step: int, record: dict[str, Any] | None) -> None:
        self.used = time.process_time() - self._began
        if self.seconds is not None and self.used >= self.seconds:
            raise Interrupted(signal.SIGINT)


def run(name: str, options: dict[str, Any], images: int | None, cpu_seconds: float | None = None) -> dict[str, Any]:
    """Trains once, with so many images or for so many seconds of the CPU, and says what came of it: nats (or error) on the
    validation images."""
    clock = Clock(cpu_seconds)
    with tempfile.TemporaryDirectory() as folder:
        said = TrainOptions(**options, out=f"{folder}/run", skip_test=True)
        batch = said.batch_size or said.recipe.batch_size
        length = {} if images is None else {"steps": images // batch}
        said = TrainOptions(**{**said.to_dict(), **length, "epochs": 10**6})
        with contextlib.suppress(*(() if cpu_seconds is None else (Interrupted,))):
            train(said, show=clock)
        saved = load_checkpoint(f"{folder}/run")
        score = {"average" if saved.ema else "weights": _score(folder, said, ema=True)}
        if saved.ema:
            score["weights"] = _score(folder, said, ema=False)
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return {
        "name": name,
        "options": options,
        "images": saved.step * batch,
        "validation": score,
        "curve": [[line["step"] * batch, round(line["nats"], 2)] for line in lines if line["split"] == "validation"],
        "seconds": lines[-1]["seconds"],
        "cpu_seconds": round(clock.used, 1),
    }


def _score(folder: str, options: TrainOptions, ema: bool) -> dict[str, float | None]:
    where = {"data": options.data, "data_dir": options.data_dir, "device": options.device}
    result: Any = evaluate_run(f"{folder}/run", split="validation", ema=ema, **where).result
    mean = result.error if hasattr(result, "error") else result.bound
    return {"mean": round(mean.mean, 4), "standard_error": mean.standard_error and round(mean.standard_error, 4)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce.search", description=__doc__)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--images", type=int, help="training images that every variant sees")
    length.add_argument("--cpu-seconds", type=float, help="time of the CPU that every variant trains for")
    parser.add_argument("--log", type=checkout.folder, required=True)
    parser.add_argument("--base", nargs="*", default=[], metavar="OPTION=VALUE")
    parser.add_argument("variants", nargs="+", metavar="NAME[:OPTION=VALUE,...]")
    said = parser.parse_args(arguments)
    return guarded(lambda: _search(said))


def _search(said: argparse.Namespace) -> int:
    done = [json.loads(line) for line in said.log.read_text().splitlines()] if said.log.exists() else []
    for text in said.variants:
        name, _, changes = text.partition(":")
        options = options_of(said.base) | options_of(changes.split(",") if changes else [])
        if any(one["name"] == name and one["options"].get("seed") == options.get("seed") for one in done):
            continue
        found = run(name, options, said.images, said.cpu_seconds) | {"commit": environment.describe()["commit"]}
        found["options"].pop("data_dir", None)
        with open(said.log, "a") as log:
            log.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
