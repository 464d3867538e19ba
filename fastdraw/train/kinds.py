"""The models that are trained, by task: the configuration of each, the model, and its specification."""

from __future__ import annotations

from typing import Any, NamedTuple

import fastdraw
from fastdraw import reference
from fastdraw.checks import expected

#: A DRAWConfig or a ClassifierConfig; a DRAW or a DRAWClassifier.
Config = Any
Model = Any


class Kind(NamedTuple):
    config: Any
    model: Any
    specification: Any


def kinds() -> dict[str, Kind]:
    found = {"draw": Kind(fastdraw.DRAWConfig, fastdraw.DRAW, reference.DRAW)}
    if hasattr(fastdraw, "DRAWClassifier"):
        found["classify"] = Kind(fastdraw.ClassifierConfig, fastdraw.DRAWClassifier, reference.DRAWClassifier)
    return found


def kind(task: str) -> Kind:
    """Raises ValueError for a task that there is not."""
    if not isinstance(task, str) or task not in kinds():
        raise expected("task", f"one of {', '.join(kinds())}", task)
    return kinds()[task]


def task_of(config: Config) -> str:
    return next(task for task, k in kinds().items() if isinstance(config, k.config))
