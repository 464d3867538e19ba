"""What the training call runs in processes of their own: `python3 -m benchmarks.gpu.learn train FOLDER ...`, and `test`.

train    measures a step in the very loop that is used, takes as many steps as fit, and trains; goes on where FOLDER has a run.
test     the bound from one sample on all test images, written down; then the estimate from many samples.

FOLDER is one of `benchmarks.reproduce`, which given it as --out draws the pictures and writes the report.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import checkout
from benchmarks.reproduce.experiments import EXPERIMENTS
from benchmarks.reproduce.runner import Said, _test
from benchmarks.reproduce.settings import options_of
from fastdraw.runs import checkpoint
from fastdraw.train import DivergedError, Interrupted, TrainOptions, train

EXPERIMENT = "mnist"
#: On top of the experiment's. A step of 128 images takes no longer than one of 100: there are as many programs as
#: multiprocessors. Twice or half the rate is --set learning_rate=...; the rate rises first since windows are placed anew then.
OPTIONS: dict[str, Any] = {"batch_size": 128, "binarize": "none", "warmup_steps": 500, "checkpoint_every": 5000}
#: Steps that are timed, and evaluations on the validation images in the whole run.
TIMED, EVALUATIONS = 300, 8
#: The share of the time left that is planned with. The schedule ends with the last step, so too many are worse than too few.
PLANNED = 0.95
#: What a rate that diverged is divided by.
SLOWER = 3.0


def seed_folder(folder: Path) -> Path:
    return folder / EXPERIMENT / "seed-0"


def chosen(said: argparse.Namespace) -> dict[str, Any]:
    data = {} if said.data_dir is None else {"data_dir": said.data_dir}
    return EXPERIMENTS[EXPERIMENT].chosen({**OPTIONS, **data, **options_of(said.set)})


def learn(said: argparse.Namespace) -> int:
    folder = seed_folder(said.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / checkpoint.NAME).exists():
        options = TrainOptions(out=str(folder), resume=True, skip_test=True, minutes=max(1.0, said.until - time.time()) / 60)
        return _train(options, {"minutes", "skip_test"})
    options = chosen(said)
    plan = timed(options, said.folder / "timed", said.timed)
    per_epoch = plan["steps_per_epoch"]
    for attempt in range(2):
        left = max(1.0, said.until - time.time())
        # A run starts as the timed one did. Its kernels lie compiled by then: that time is the evaluations'.
        steps = max(1, int(PLANNED * (left - plan["start"]) / plan["step"]))
        options |= {"steps": steps, "epochs": max(1, -(-steps // per_epoch))}
        options["evaluate_every"] = max(1, steps // per_epoch // EVALUATIONS)
        plan |= {"commit": said.commit, "steps": steps, "seconds_left": left, "options": options, "attempt": attempt}
        (said.folder / "plan.json").write_text(json.dumps(plan, indent=1))
        many = f"{steps} steps = {steps / per_epoch:.1f} epochs"
        print(f"{1e3 * plan['step']:.3f} ms a step; {many} in {left:.0f} s", flush=True)
        try:
            return _train(TrainOptions(**options, out=str(folder), overwrite=True, skip_test=True, minutes=left / 60))
        except DivergedError as error:
            print(error, flush=True)
            rate = TrainOptions(**options).resolved((1, 28, 28), 1).learning_rate or 0.0
            options["learning_rate"] = rate / SLOWER
    return 1


def _train(options: TrainOptions, explicit: set[str] | None = None) -> int:
    try:
        train(options, explicit)
    except Interrupted as error:
        # The test images are evaluated all the same.
        print(error, flush=True)
    return 0


def timed(options: dict[str, Any], folder: Path, steps: int) -> dict[str, Any]:
    """Seconds of a step at the end of a short run, the loop's own work in it, and of everything else in that run."""
    began, third = time.monotonic(), max(1, steps // 3)
    now = {"out": str(folder), "epochs": 10**6, "steps": 3 * third, "log_every": third, "evaluate_every": 10**6}
    train(TrainOptions(**{**options, **now, "overwrite": True, "skip_test": True}))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    about = json.loads((folder / "config.json").read_text())
    batch = about["options"]["batch_size"]
    # The first third has the capture in it.
    step = batch / [line["images_per_second"] for line in lines if line["split"] == "train"][-1]
    start = max(0.0, time.monotonic() - began - 3 * third * step)
    return {"step": step, "start": start, "steps_per_epoch": about["images"]["train"] // batch}


def test(said: argparse.Namespace) -> int:
    options = {} if said.data_dir is None else {"data_dir": said.data_dir}
    for samples in sorted({1, said.samples}):
        _test(seed_folder(said.folder), Said(EXPERIMENT, said.folder, samples=samples, batch=said.batch, options=options))
        print((seed_folder(said.folder) / "test.json").read_text(), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu.learn", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["train", "test"])
    parser.add_argument("folder", type=checkout.folder)
    parser.add_argument(
        "--until", type=float, default=time.time() + 300, help="when training has to be over, as of time.time()"
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--commit")
    parser.add_argument("--timed", type=int, default=TIMED)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--set", nargs="*", default=[])
    said = parser.parse_args()
    return learn(said) if said.what == "train" else test(said)


if __name__ == "__main__":
    sys.exit(main())
