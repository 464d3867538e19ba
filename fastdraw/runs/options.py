"""How a command's options are written down; and those of a run that evaluation and pictures take as well: what their
values must be, and what a checkpoint says.

Each check raises ValueError or TypeError naming option, expectation and what came.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdraw.scalars import check_size, expected
from fastdraw.text import short

if TYPE_CHECKING:
    from fastdraw.runs.checkpoint import Checkpoint

BINARIZE = ("auto", "none", "dynamic")
PRECISIONS = ("fp32", "tf32", "bf16")
#: Pixels, or filters, along a side.
LARGEST_SIDE = 1 << 16


def option(default: Any, panel: str | None, help: str, shown: str | None = None, metavar: str | None = None) -> Any:
    """A field of the dataclass that a command makes its options of. `shown` is what help gives as the default where the
    default is found later."""
    return field(default=default, metadata={"panel": panel, "help": help, "shown": shown, "metavar": metavar})


def check_image_size(value: Any) -> str:
    """A number for height and width, or both, as text: "48x64"."""
    texts = value.split("x") if isinstance(value, str) else [value]
    try:
        sizes = [check_size("image_size", int(text) if isinstance(text, str) else text) for text in texts]
    except (ValueError, TypeError) as error:
        raise expected("image_size", "a number of at least 1, or two, as in 48x64", value, type(error)) from None
    if len(sizes) > 2 or max(sizes) > LARGEST_SIDE:
        raise expected("image_size", f"one number or two, as in 48x64, each at most {LARGEST_SIDE:,}", value)
    return f"{sizes[0]}x{sizes[-1]}"


def image_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of what `check_image_size` gives."""
    if text is None:
        return None
    height, width = text.split("x")
    return int(height), int(width)


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise expected(name, f"one of {', '.join(choices)}", value)
    return value


def check_kind(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind`: text (str, where a path is that too), yes or no (bool), a number (float)."""
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise expected(name, "a finite number", value) from None
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind is float or not isinstance(value, kind):
        raise expected(name, {str: "text", bool: "True or False", float: "a number"}[kind], value, TypeError)
    return value


CHECKS: dict[str, Callable[[Any], Any]] = {
    "data": partial(check_kind, "data", kind=str),
    "data_dir": partial(check_kind, "data_dir", kind=str),
    "image_size": check_image_size,
    "skip_bad": partial(check_kind, "skip_bad", kind=bool),
    "binarize": partial(check_choice, "binarize", choices=BINARIZE),
    "precision": partial(check_choice, "precision", choices=PRECISIONS),
    "eval_batch": partial(check_size, "eval_batch"),
    "seed": partial(check_size, "seed", least=0),
}
#: Of those the ones that may be None.
_LEFT_OPEN = ("data_dir", "image_size")


def told(file: Path, saved: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's run was told, as far as it says and this module knows it; a stranger may have written it.

    Raises CheckpointError for values that are none of the option's.
    """
    from fastdraw.runs.checkpoint import CheckpointError

    said = saved.training.get("options")
    if not isinstance(said, dict):
        return {}
    try:
        return {
            name: None if said[name] is None and name in _LEFT_OPEN else check(said[name])
            for name, check in CHECKS.items()
            if name in said
        }
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: expected the options of a run, got {short(error)}") from error
