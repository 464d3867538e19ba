"""DRAW (Gregor et al. 2015) and its Gaussian glimpses for PyTorch: the paper's exact maths in fused kernels."""

import os as _os

# In a checkout that is not installed fastdraw.kernels lies beside this package, in kernels/; an installed one has its own.
if not _os.path.isdir(_os.path.join(__path__[0], "kernels")):
    __path__.append(_os.path.dirname(__path__[0]))

from fastdraw import installed as _installed
from fastdraw import reference
from fastdraw._version import __version__
from fastdraw.boxes import boxes_from_params, concentric_boxes, crop, params_from_boxes, paste
from fastdraw.classifier import DRAWClassifier
from fastdraw.config import ClassifierConfig, DRAWConfig, classifier_presets, presets
from fastdraw.dispatch import backend, backends
from fastdraw.glimpse import GaussianGlimpse
from fastdraw.graphed import GraphedStep, StepOutput
from fastdraw.model import DRAW
from fastdraw.ops import filterbank, lstm_step, read, write
from fastdraw.outputs import DRAWOutput, FilterBank, Trajectory, Window
from fastdraw.ports import load_port_weights
from fastdraw.pyramid import Pyramid
from fastdraw.reference import ClassifierOutput
from fastdraw.sharing import Sampler

if (_mixed := _installed.mixed()) is not None:
    import warnings as _warnings

    _warnings.warn(_mixed, stacklevel=2)

__all__ = [
    "DRAW",
    "ClassifierConfig",
    "ClassifierOutput",
    "DRAWClassifier",
    "DRAWConfig",
    "DRAWOutput",
    "FilterBank",
    "GaussianGlimpse",
    "GraphedStep",
    "Pyramid",
    "Sampler",
    "StepOutput",
    "Trajectory",
    "Window",
    "__version__",
    "backend",
    "backends",
    "boxes_from_params",
    "classifier_presets",
    "concentric_boxes",
    "crop",
    "filterbank",
    "load_port_weights",
    "lstm_step",
    "params_from_boxes",
    "paste",
    "presets",
    "read",
    "reference",
    "write",
]
