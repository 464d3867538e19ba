"""The models that are trained, by task: the configuration of each, the model, and its specification."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from fastdraw import reference
from fastdraw.checks import expected
from fastdraw.classifier import DRAWClassifier
from fastdraw.config import ClassifierConfig, DRAWConfig
from fastdraw.model import DRAW

Config: TypeAlias = DRAWConfig | ClassifierConfig
Model: TypeAlias = DRAW | DRAWClassifier


class Kind(NamedTuple):
    # Any: the two kinds' own constructors and methods take different arguments.
    config: Any
    model: Any
    specification: Any


KINDS = {
    "draw": Kind(DRAWConfig, DRAW, reference.DRAW),
    "classify": Kind(ClassifierConfig, DRAWClassifier, reference.DRAWClassifier),
}


def kind(task: str) -> Kind:
    """Raises ValueError for a task that there is not."""
    if not isinstance(task, str) or task not in KINDS:
        raise expected("task", f"one of {', '.join(KINDS)}", task)
    return KINDS[task]


def task_of(config: Config) -> str:
    return next(task for task, k in KINDS.items() if isinstance(config, k.config))
