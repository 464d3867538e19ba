"""Predicted microseconds of every launch of a step, what limits it, and the step's sum, without a GPU.

    python -m benchmarks.predict                                 the paper's models: training steps, forward passes, sampling
    python -m benchmarks.predict mnist:2048 svhn:128:float32:forward      MODEL:BATCH[:PRECISION[:train|forward|sample]]
    python -m benchmarks.predict --json new.json --against old.json       what a change does: old.json is another version's

It is right to a third at best, and is for comparing two versions of a kernel. What it assumes: assumptions.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

import fastdraw
from benchmarks import checkout

from .assumptions import CHIP, Chip
from .recorded import AUTOCAST, Launch, Setting, Torch, recorded
from .timing import Prediction, predicted

SETTINGS = (
    *("mnist:128", "mnist:2048", "mnist:128:tf32", "mnist:128:float32", "svhn:128", "cifar10:128", "cluttered-mnist:128"),
    *("mnist:128:bfloat16:forward", "mnist:128:bfloat16:sample"),
)
#: By what a kernel is compiled for and its grid.
_known: dict[str, Prediction] = {}


def setting(text: str) -> Setting:
    model, batch, *rest = text.split(":")
    found = Setting(model, int(batch), *rest)
    if model not in (*fastdraw.presets, *fastdraw.classifier_presets):
        raise ValueError(
            f"model: expected one of {', '.join((*fastdraw.presets, *fastdraw.classifier_presets))}, got {model!r}"
        )
    if found.precision not in AUTOCAST or found.what not in ("train", "forward", "sample"):
        raise ValueError(f"setting: expected MODEL:BATCH[:PRECISION[:train|forward|sample]], got {text!r}")
    return found


def label(launch: Launch) -> str:
    """The kernel, the lengths of its product, and the flags that make another kernel of it."""
    constants = launch.arguments
    sizes = [f"{name}={constants[name]}" for name in ("K", "M", "N") if name in constants]
    flags = [
        name for name in launch.kernel.arg_names if constants.get(name) is True and name not in ("DOT", "SINGLE", "FUSED")
    ]
    return " ".join((launch.kernel.fn.__name__.removesuffix("_kernel"), *sizes, *(flag.lower() for flag in flags)))


def signature(launch: Launch) -> str:
    values = {
        name: (str(value.dtype), value.storage_offset() * value.element_size() % 16) if hasattr(value, "dtype") else value
        for name, value in launch.arguments.items()
    }
    return repr((launch.kernel.fn.__name__, launch.grid, launch.num_warps, launch.num_stages, values))


def table(asked: Setting, chip: Chip = CHIP) -> dict[str, Any]:
    """{"us": the step's, "launches": {name: count, us of one body, of all with their launches, what limits it, ...}}."""
    rows: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    first: dict[str, Launch] = {}
    torchs: list[Torch] = []
    for item in recorded(asked):
        if isinstance(item, Torch):
            torchs.append(item)
        else:
            key = signature(item)
            counts[key] += 1
            first.setdefault(key, item)
    for key, count in counts.items():
        launch = first[key]
        if key not in _known:
            _known[key] = predicted(launch, chip)
        found = _known[key]
        cost = chip.dependent_launch_us if "DEPENDENT" in launch.kernel.arg_names else chip.launch_us
        name = label(launch)
        while name in rows:
            name += "'"
        rows[name] = {
            "count": count,
            "us": found.us,
            "us in all": count * (found.us + cost),
            "limit": found.limit,
            "grid": "x".join(map(str, launch.grid)),
            "multiprocessors": min(found.programs, chip.multiprocessors),
            "resident": found.resident,
            "rounds": found.rounds,
            "registers": found.registers,
            "shared": found.shared,
            "spilled": found.spilled,
            "instructions": found.instructions,
            "megabytes": found.megabytes,
            "guessed": found.guessed,
        }
    for name, kernels in _torchs(torchs).items():
        each = [torch_us(kernel, chip) for kernel in kernels]
        rows[name] = {"count": len(each), "us": sum(each) / len(each), "us in all": sum(each) + chip.launch_us * len(each)}
    rows = dict(sorted(rows.items(), key=lambda item: -item[1]["us in all"]))
    return {"us": sum(row["us in all"] for row in rows.values()), "launches": rows}


def _torchs(kernels: list[Torch]) -> dict[str, list[Torch]]:
    """Products by their sizes; everything else of torch's in one row."""
    found: dict[str, list[Torch]] = {}
    for kernel in kernels:
        found.setdefault(f"torch: {kernel.name}" if kernel.operations else "torch: all else", []).append(kernel)
    return found


def torch_us(kernel: Torch, chip: Chip) -> float:
    rate = chip.l2_bytes_per_cycle * chip.clock_ghz * 1000 if kernel.bytes < chip.l2_bytes else chip.memory_bytes_per_us
    operations = kernel.operations / chip.product_per_us[kernel.dtype] if kernel.operations else 0.0
    return chip.torch_kernel_us + max(kernel.bytes / rate, operations)


def lines(name: str, found: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    """A table to be read; `before`: the same setting of another version."""
    old = before["launches"] if before else {}
    head = (
        f"{'launch':<44}{'count':>6}{'grid':>9}{'us':>8}" + (f"{'before':>8}" if before else "") + f"{'in all':>9}  limited by"
    )
    rows = [f"{name}: {found['us']:.0f} us predicted" + (f", {before['us']:.0f} before" if before else ""), head]
    for launch, row in found["launches"].items():
        was = old.get(launch, {}).get("us")
        numbers = f"{row['count']:>6}{row.get('grid', ''):>9}{row['us']:>8.2f}"
        numbers += (f"{was:>8.2f}" if was is not None else f"{'':>8}") if before else ""
        notes = [row.get("limit", "")]
        if row.get("multiprocessors", 132) < CHIP.multiprocessors:
            notes.append(f"on {row['multiprocessors']} multiprocessors")
        notes += [f"{row['spilled']} bytes spilled"] if row.get("spilled") else []
        notes += [f"bounds of {row['guessed']} loops guessed"] if row.get("guessed") else []
        rows.append(f"{launch[:43]:<44}{numbers}{row['us in all']:>9.1f}  {'; '.join(notes)}")
    gone = [launch for launch in old if launch not in found["launches"]]
    return rows + ([f"no longer there: {', '.join(gone)}"] if gone else [])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("settings", nargs="*", default=SETTINGS, metavar="MODEL:BATCH[:PRECISION[:WHAT]]")
    parser.add_argument("--json", type=checkout.folder, help="where the figures go as well")
    parser.add_argument("--against", type=checkout.folder, help="what --json wrote for another version")
    given = parser.parse_args(arguments)
    before = json.loads(given.against.read_text()) if given.against else {}
    found: dict[str, Any] = {}
    for asked in map(setting, given.settings):
        found[asked.name] = table(asked)
        print("\n".join(lines(asked.name, found[asked.name], before.get(asked.name))), end="\n\n", flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
