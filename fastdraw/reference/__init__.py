"""The specification: DRAW (Gregor et al. 2015, arXiv 1502.04623) in plain PyTorch, one line an equation.

Nothing here is fused or fast. It runs in any floating dtype, is differentiable twice, and every kernel of fastdraw is
proven against it. Numbers in brackets are the paper's equations. Two conventions, used everywhere:

- Pixels and filters count from 1 in the paper and from 0 here. Centres below are 0-based pixels.
- `params` [B, 5] holds the raw outputs (g~x, g~y, log sigma^2, log delta~, log gamma) of equation 21; [B, 7] one sigma and one
  stride for each axis, (g~x, g~y, log sigma_x^2, log sigma_y^2, log delta~x, log delta~y, log gamma). Half precision is
  widened to float32 for the window's geometry, since bfloat16 cannot tell neighbouring pixels apart.
- N is one number, or (N_y, N_x), filters along each axis; the stride's unit is what spans the image with the larger of them.
"""

from fastdraw.outputs import DRAWOutput, FilterBank, Recurrence, Trajectory, Window
from fastdraw.reference.classifier import ClassifierOutput, DRAWClassifier
from fastdraw.reference.draw import DRAW
from fastdraw.reference.operators import (
    EXPONENT_LIMIT,
    PARAM_LIMITS,
    Operators,
    filterbank,
    kl_divergence,
    lstm_step,
    lstm_weights,
    param_limits,
    read,
    stride_unit,
    window,
    write,
)

__all__ = [
    "DRAW",
    "EXPONENT_LIMIT",
    "PARAM_LIMITS",
    "ClassifierOutput",
    "DRAWClassifier",
    "DRAWOutput",
    "FilterBank",
    "Operators",
    "Recurrence",
    "Trajectory",
    "Window",
    "filterbank",
    "kl_divergence",
    "lstm_step",
    "lstm_weights",
    "param_limits",
    "read",
    "stride_unit",
    "window",
    "write",
]
