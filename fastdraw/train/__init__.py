"""Training DRAW from end to end: `fastdraw train`, and the same from Python.

    from fastdraw.train import TrainOptions, train
    result = train(TrainOptions(data="digits", epochs=10, out="runs/digits"))

    model = fastdraw.train.load_model("runs/digits")

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw-torch[train]".
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastdraw.train.options import TrainOptions

if TYPE_CHECKING:
    from fastdraw.runs.checkpoint import CheckpointError, load_checkpoint, load_model
    from fastdraw.runs.parallel import ProcessLost
    from fastdraw.train.display import Result
    from fastdraw.train.loop import DivergedError, Interrupted, train

__all__ = [
    "CheckpointError",
    "DivergedError",
    "Interrupted",
    "ProcessLost",
    "Result",
    "TrainOptions",
    "load_checkpoint",
    "load_model",
    "train",
]

#: Where all but the options are. They import torch, so they are imported when they are asked for.
_PLACES = ("train.loop", "train.display", "runs.checkpoint", "runs.parallel")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for place in _PLACES:
            if hasattr(module := importlib.import_module(f"fastdraw.{place}"), name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
