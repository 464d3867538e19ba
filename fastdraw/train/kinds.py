"""The models that are trained, by task: the configuration of each, the model, and its specification."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from fastdraw import config, model, reference
from fastdraw.checks import expected

#: A DRAWConfig or a ClassifierConfig; a DRAW or a DRAWClassifier.
Config = Any
Model = Any


class Kind(NamedTuple):
    config: Any
    model: Any
    specification: Any


def kinds() -> dict[str, Kind]:
    found = {"draw": Kind(config.DRAWConfig, model.DRAW, reference.DRAW)}
    package: Any = sys.modules["fastdraw"]
    if hasattr(package, "DRAWClassifier"):
        found["classify"] = Kind(package.ClassifierConfig, package.DRAWClassifier, reference.DRAWClassifier)
    return found


def kind(task: str) -> Kind:
    """Raises ValueError for a task that there is not."""
    if not isinstance(task, str) or task not in kinds():
        raise expected("task", f"one of {', '.join(kinds())}", task)
    return kinds()[task]


def task_of(about: Config) -> str:
    return next(task for task, k in kinds().items() if isinstance(about, k.config))
