"""Training DRAW from end to end: `fastdraw train`, and the same from Python.

    from fastdraw.train import TrainOptions, train
    result = train(TrainOptions(data="digits", epochs=10, out="runs/digits"))

    model = fastdraw.train.load_model("runs/digits")

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw[train]".
"""

from fastdraw.train.checkpoint import CheckpointError, load_checkpoint, load_model
from fastdraw.train.loop import DivergedError, Interrupted, train
from fastdraw.train.options import TrainOptions
from fastdraw.train.parallel import ProcessLost
from fastdraw.train.report import Result

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
