"""What figures were measured on, and how busy it was meanwhile."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

#: Programs that were busy on this machine in the minute before this process came.
BUSY = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0

_SMI_FIELDS = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu,memory.total"


def describe() -> dict[str, Any]:
    """Names and versions; what cannot be found out is None."""
    import torch

    import fastdraw
    from fastdraw import dispatch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "busy before": round(BUSY, 1),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "fastdraw": fastdraw.__version__,
        "backends": fastdraw.backends(),
        "slower": dispatch.slower(device),
        "float32 products": _products(),
        "device": "cpu",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory bytes": properties.total_memory,
            "L2 bytes": getattr(properties, "L2_cache_size", None),
            "cuda": torch.version.cuda or torch.version.hip,
            "cudnn": torch.backends.cudnn.version(),
            "nvidia-smi": output_of("nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv"),
        }
    return found


def line(found: dict[str, Any]) -> str:
    """One line for the head of a table."""
    slower = f"; {found['slower']}" if found.get("slower") else ""
    device = "" if found["device"] == "cpu" else f"{found['device']}, CUDA {found['cuda']}, triton {found['triton']}; "
    return (
        f"{device}{found['cpu']}, {found['cores']} cores, {found['threads']} threads, "
        f"float32 products by {found.get('float32 products') or 'torch.mm'}; Python {found['python']}, "
        f"torch {found['torch']}, fastdraw {found['fastdraw']}{slower}"
    )


def _products() -> str | None:
    """The library that the CPU kernels send float32 products to: chosen by a measurement in each process."""
    import fastdraw

    if fastdraw.backends()["native"] is not None:
        return None
    from fastdraw.kernels.cpu import gemm

    return gemm.chosen()


class Others:
    """How many cores other programs, and other machines on the same hardware, kept busy since this was made. Linux only."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float | None:
        now = self._now()
        if now is None or self._start is None:
            return None
        seconds, busy, own = (b - a for a, b in zip(self._start, now, strict=True))
        # Counted in hundredths of a second: small differences may come out below zero.
        return max(0.0, busy - own) / max(seconds, 0.01)

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        except OSError:
            return None
        # user, nice, system, (idle, iowait), irq, softirq, steal.
        ticks = sum(int(fields[i]) for i in (1, 2, 3, 6, 7, 8))
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def output_of(*command: str) -> str | None:
    """What a program prints; None where there is none, or where it fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in fields:
        return platform.machine()
    # Virtual machines often hide the number that tells generations apart, whose rates differ by two.
    numbers = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    return fields["model name"] + numbers


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
