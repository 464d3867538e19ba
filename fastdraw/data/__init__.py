"""Images to train on: data sets by name, or a file or folder of one's own.

    splits = fastdraw.data.load("digits")
    x = fastdraw.data.binarize(splits.train[:100], generator)      # float32 [100, 1, 28, 28] of 0 and 1

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw[train]".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fastdraw.checks import check_pair, expected
from fastdraw.data import digits
from fastdraw.data.splits import DataError, Labels, Splits, binarize, images

__all__ = ["DataError", "Labels", "Splits", "binarize", "images", "load", "names"]


def names() -> tuple[str, ...]:
    """The data sets known by name."""
    return ("digits", "mnist", "binarized-mnist")


def load(
    name_or_path: str | os.PathLike[str],
    data_dir: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    download: bool = True,
    progress: bool = False,
) -> Splits:
    if str(name_or_path) == "digits":
        return digits.load()
    raise DataError(f"data: expected one of {', '.join(names())}, got {name_or_path!r}")
