"""Training DRAW from end to end: `fastdraw train`, and the same from Python.

    from fastdraw.train import TrainOptions, train
    result = train(TrainOptions(data="digits", epochs=10, out="runs/digits"))

    model = fastdraw.train.load_model("runs/digits")

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw-torch[train]".
"""

from fastdraw.runs.checkpoint import CheckpointError, load_checkpoint, load_model
from fastdraw.runs.parallel import ProcessLost
from fastdraw.train.display import Result
from fastdraw.train.loop import DivergedError, Interrupted, train
from fastdraw.train.options import TrainOptions

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
