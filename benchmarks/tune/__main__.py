"""`python -m benchmarks.tune`: other tiles for the kernels of kernels/triton/tables.py and piece_tables.py, tried on a device.

    python -m benchmarks.tune --predict "cell: 16 warps hide the loads, 2.1 us -> 1.8" --only cell
    python -m benchmarks.tune --predict ... --setting mnist --batch 2048 --precision bfloat16 --seconds 240 --confirm
    python -m benchmarks.tune --predict ... --setting "large image 12" --precision tf32

One kernel after the other, one field of its row after the other: each candidate is the best row so far with one field changed,
is launched by the launcher itself, has to give the present row's results, and is timed in a graph, launch after launch as in a
step. Nothing is written into the tables: the proposal is printed, with registers and spills, and goes with every trial and the
prediction into a JSON file. With --confirm a training step is timed with the present rows and the proposed ones, in turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import checkout
from benchmarks.tune import rows
from benchmarks.tune.rows import Subject, Timing

#: Values of each field of a row, whatever kind of row it is. A field that is not here stays.
VALUES: dict[str, tuple[Any, ...]] = {
    "num_warps": (1, 2, 4, 8, 16),
    "num_stages": (1, 2, 3, 4, 5),
    "block_b": (16, 32, 64, 128),
    "block_n": (8, 16, 32, 64, 128),
    "block_k": (16, 32, 64, 128, 256),
    "block_h": (16, 32, 64, 128),
    "block_w": (16, 32, 64, 128),
    "side": (16, 32, 64, 128),
    "dot": (False, True),
}
#: What a candidate has to gain: less is within the spread of two measurements.
GAIN = 0.02


class Trial(NamedTuple):
    row: Any
    timing: Timing


def candidates(row: Any, field: str) -> list[Any]:
    """The row with other values of one field, the nearest first."""
    values, own = VALUES[field], getattr(row, field)
    place = values.index(own) if own in values else 0
    others = sorted((v for v in values if v != own), key=lambda v: abs(values.index(v) - place))
    return [row._replace(**{field: value}) for value in others]


def search(present: Any, measure: Callable[[Any], Timing], seconds_left: Callable[[], float]) -> list[Trial]:
    """Trials in their order, the present row's first; `best` names the winner. Stops where no time is left."""
    trials = [Trial(present, measure(present))]
    if trials[0].timing.seconds is None:
        return trials
    for field in (f for f in VALUES if f in present._fields):
        start = best(trials).row
        for row in candidates(start, field):
            if seconds_left() <= 0:
                return trials
            trials.append(Trial(row, measure(row)))
    return trials


def best(trials: Sequence[Trial]) -> Trial:
    """The present row, unless another is quicker by more than noise, spills nothing more, and is right."""
    present = trials[0]
    if present.timing.seconds is None:
        return present
    allowed = present.timing.spills or 0
    fit = [t for t in trials if t.timing.seconds is not None and (t.timing.spills or 0) <= allowed]
    quickest = min(fit, key=lambda t: t.timing.seconds or float("inf"))
    return quickest if (quickest.timing.seconds or 0) < (1 - GAIN) * present.timing.seconds else present


def text(trial: Trial, present: Trial) -> str:
    timing = trial.timing
    if timing.seconds is None:
        return f"  {trial.row}: {timing.problem}"
    ratio = "" if present.timing.seconds is None else f"  {present.timing.seconds / timing.seconds:.3f}x"
    kept = "" if timing.registers is None else f"  {timing.registers} registers, {timing.spills} spilled"
    return f"  {timing.seconds * 1e6:8.2f} us{ratio}  {trial.row}{kept}"


def as_json(subject: Subject, trials: Sequence[Trial]) -> dict[str, Any]:
    chosen = best(trials)
    return {
        "kernel": subject.name,
        "row of": list(subject.key),
        "present": trials[0].row._asdict(),
        "best": chosen.row._asdict(),
        "gain": _gain(chosen, trials[0]),
        "trials": [{"row": t.row._asdict(), **t.timing._asdict()} for t in trials],
    }


def _gain(chosen: Trial, present: Trial) -> float | None:
    if chosen.timing.seconds is None or present.timing.seconds is None:
        return None
    return 1 - chosen.timing.seconds / present.timing.seconds


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tune", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--setting", default="mnist", help="a name of aot_pieces.MODELS or aot.GLIMPSES; default: mnist")
    parser.add_argument("--batch", type=int, help="another batch than the setting's")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float16", "float32", "tf32"])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="kernels whose names begin with one of these")
    parser.add_argument("--seconds", type=float, default=240.0, help="time for all kernels together; default: 240")
    parser.add_argument("--predict", required=True, help="what should change, by how much, and why: kept beside what came")
    parser.add_argument("--confirm", action="store_true", help="time a training step with the proposed rows")
    parser.add_argument(
        "--out", type=checkout.folder, default=Path("results"), help="folder for tune-*.json; default: results"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    if not torch.cuda.is_available():
        print("tuning needs a CUDA device", file=sys.stderr)
        return 2
    from fastdraw.kernels.triton import aot, aot_pieces

    if options.setting not in (*aot_pieces.MODELS, *aot.GLIMPSES):
        print(f"--setting: expected one of {', '.join((*aot_pieces.MODELS, *aot.GLIMPSES))}", file=sys.stderr)
        return 2
    make = rows.piece_subjects if options.setting in aot_pieces.MODELS else rows.glimpse_subjects
    subjects = make(options.setting, options.batch, options.precision)
    if options.only:
        subjects = [s for s in subjects if s.name.startswith(tuple(options.only))]
    return tune(subjects, rows.on_device, options)


def tune(subjects: Sequence[Subject], measures: Callable[[Subject], Callable[[Any], Timing]], options: Any) -> int:
    """Searches for each subject with an equal share of the time that is left, and writes what came after each."""
    from benchmarks import environment

    end = time.monotonic() + options.seconds
    found: dict[str, Any] = {
        "predicted": options.predict,
        "setting": options.setting,
        "batch": options.batch,
        "precision": options.precision,
        "environment": environment.describe(),
        "kernels": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = options.out / f"tune-{options.setting.replace(' ', '-')}-{options.precision}-{stamp}.json"
    changes: rows.Changes = {}
    print(f"predicted: {options.predict}")
    for number, subject in enumerate(subjects):
        share = time.monotonic() + (end - time.monotonic()) / (len(subjects) - number)
        trials = search(subject.present, measures(subject), lambda share=share: share - time.monotonic())
        chosen = best(trials)
        print(f"{subject.name}, {len(trials)} rows tried", *(text(t, trials[0]) for t in trials), sep="\n", flush=True)
        if chosen is not trials[0]:
            gain = _gain(chosen, trials[0]) or 0.0
            print(f"  proposed for {subject.key}: {chosen.row} in place of {trials[0].row}: {100 * gain:.1f} % less")
            # Two kernels with one row: what the later one likes is confirmed, or not, by the step.
            changes[id(subject.table), subject.key] = (subject, chosen.row)
        found["kernels"].append(as_json(subject, trials))
        path.write_text(json.dumps(found, indent=1))
    if getattr(options, "confirm", False) and changes:
        found["step, seconds"] = rows.confirmed(changes, options.batch or 128, options.precision)
        print("a training step: " + ", ".join(f"{name} {1e3 * s:.4g} ms" for name, s in found["step, seconds"].items()))
        path.write_text(json.dumps(found, indent=1))
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
