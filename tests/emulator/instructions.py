"""All instructions that are known: importing a module of them registers what it has."""

from __future__ import annotations

from typing import Any

from . import arithmetic, conversions, copies, exchange, integers, matrices, movement, wgmma
from .registry import build as build

__all__ = ["build", "check_in_flight"]
_ = (arithmetic, conversions, copies, exchange, integers, matrices, movement)
check_in_flight: Any = wgmma.check_in_flight
