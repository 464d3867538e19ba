"""A mean and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Mean:
    """mean over images, and its standard error from the spread between them; None for a single image."""

    mean: float
    standard_error: float | None

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """values [n], n at least 1."""
        values = values.double()
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(values.mean().item(), error)

    @classmethod
    def share(cls, part: int, whole: int) -> Mean:
        """Of `part` among `whole` images, in percent: its standard error is 100 sqrt(p (1 - p) / whole)."""
        p = part / whole
        return cls(100 * p, 100 * math.sqrt(p * (1 - p) / whole))

    def __format__(self, form: str) -> str:
        """Both figures in this form, ".2f" unless told."""
        form = form or ".2f"
        return f"{self.mean:{form}}" + ("" if self.standard_error is None else f" +- {self.standard_error:{form}}")

    def __str__(self) -> str:
        return f"{self}"
