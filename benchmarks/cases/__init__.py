"""What `pytest --benchmark` and `make gpu` measure: operators, large glimpses, models, training steps."""

from __future__ import annotations

import torch

import fastdraw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def fastdraw_backends() -> list[str]:
    """Backends that run on DEVICE here, the one that "auto" means first."""
    order = ["triton", "aten"] if DEVICE == "cuda" else ["native", "aten"]
    return [name for name in order if fastdraw.backends()[name] is None]
