"""Where a command computes."""

from __future__ import annotations

import torch

from fastdraw.checks import expected


def find_device(name: str, rank: int = 0) -> torch.device:
    """The device that --device means for process number `rank` of this machine. Raises ValueError where there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise expected("device", "auto, cpu or cuda", name)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu or auto, got cuda, of which this PyTorch finds none")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if rank >= torch.cuda.device_count():
        raise ValueError(f"device: expected one CUDA device for each process, got {torch.cuda.device_count()} devices")
    return torch.device("cuda", rank)
