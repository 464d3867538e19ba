"""How much memory a training step adds at its peak, each variant in a process of its own.

`python -m benchmarks.memory` prints the tables. On Linux it is the high-water mark of resident memory, reset just before a
step that has warm libraries behind it, above what was resident then; on CUDA what torch's allocator counts. Gradients of all
weights are part of the step; weights, images and noise are there before it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import checkout
from fastdraw.kernels.cpu import pages

#: Figures of each setting; the median counts.
_ROUNDS = 3

#: By name: DRAWConfig's arguments and the batch.
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {
    "MNIST": ({"glimpses": 64}, 128),
    "SVHN": ({"image_shape": (3, 54, 54), "hidden_size": 800, "read_size": 12, "write_size": 12, "glimpses": 32}, 32),
}
#: By name: kind of model, bfloat16 autocast, canvas_memory.
VARIANTS: dict[str, tuple[str, bool, str]] = {
    "fastdraw": ("fastdraw", False, "keep"),
    "fastdraw, rebuild": ("fastdraw", False, "rebuild"),
    "fastdraw, bfloat16": ("fastdraw", True, "keep"),
    "fastdraw, bfloat16, rebuild": ("fastdraw", True, "rebuild"),
    "reference": ("reference", False, "keep"),
}
#: Settings with their numbers of glimpses: half as many at SVHN's size show what grows with T. Then the variants measured.
CASES = [
    ("MNIST", 64, list(VARIANTS)),
    ("SVHN", 16, ["fastdraw", "fastdraw, rebuild", "reference"]),
    ("SVHN", 32, ["fastdraw", "fastdraw, rebuild", "reference"]),
]


def unavailable() -> str | None:
    """Why peaks cannot be measured here, or None."""
    import torch

    if torch.cuda.is_available():
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        return f"the high-water mark of resident memory cannot be reset here: {error}"
    return None


def peaks(setting: str, glimpses: int, kind: str, autocast: bool, canvas_memory: str) -> list[int]:
    """Bytes that each of several steps adds at its peak, measured in a new process; a GPU's allocator needs none."""
    import torch

    if torch.cuda.is_available():
        return _measure(setting, glimpses, kind, autocast, canvas_memory)
    request = json.dumps([setting, glimpses, kind, autocast, canvas_memory])
    command = [sys.executable, "-m", "benchmarks.memory", request]
    done = subprocess.run(command, cwd=checkout.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{request}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(setting: str, glimpses: int, kind: str, autocast: bool, canvas_memory: str) -> list[int]:
    import torch

    import fastdraw

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments, batch = SETTINGS[setting]
    arguments = {**arguments, "glimpses": glimpses, "canvas_memory": canvas_memory}
    model = (fastdraw.DRAW if kind == "fastdraw" else fastdraw.reference.DRAW)(**arguments).to(device)
    x = torch.rand(batch, *model.config.image_shape, device=device)
    noise = torch.randn(glimpses, batch, model.config.latent_size, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            out = model(x, noise)
        out.loss.backward()

    step()
    figures = []
    for _ in range(_ROUNDS):
        model.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step()
            figures.append(torch.cuda.max_memory_allocated() - before)
            continue
        _give_back()
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        step()
        figures.append(_status("VmHWM") - before)
    return figures


def _give_back() -> None:
    """Memory that was freed goes back to the system, so that a step finds none that it need not ask for."""
    pages.release()
    # Only glibc keeps it, and has this.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kibibytes)


def result(setting: str, glimpses: int, names: Sequence[str]) -> dict[str, Any]:
    """The table's figures for one setting."""
    from fastdraw.profile import figures

    rows = [figures.row(name, [float(peak) for peak in peaks(setting, glimpses, *VARIANTS[name])]) for name in names]
    return {
        "title": f"memory of DRAW {setting} {SETTINGS[setting][1]}, T={glimpses}",
        "measured": "what a training step adds at its peak, in a process of its own",
        "unit": "B",
        "floor": None,
        "rows": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").split("\n\n")[0])
    # What `peaks` asks a process of its own for.
    parser.add_argument("request", nargs="?", type=json.loads, help=argparse.SUPPRESS)
    if (request := parser.parse_args().request) is not None:
        print(json.dumps(_measure(*request)))
    else:
        from benchmarks import environment
        from fastdraw.profile import table

        environment.warn()
        print(table.markdown([result(*case) for case in CASES]))
