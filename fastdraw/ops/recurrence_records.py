"""What the recurrence's operator and its gradient are given and give, as records (fastdraw/ops/records.py)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.ops.glimpses import Tape


class Layers(NamedTuple):
    """The model's own parameters. Windows are None without attention there, and that of the read when nothing is read."""

    encoder_ih: Tensor
    encoder_hh: Tensor
    encoder_bias_ih: Tensor
    encoder_bias_hh: Tensor
    latent: Tensor
    latent_bias: Tensor
    decoder_ih: Tensor
    decoder_hh: Tensor
    decoder_bias_ih: Tensor
    decoder_bias_hh: Tensor
    patch: Tensor
    patch_bias: Tensor
    write: Tensor | None
    write_bias: Tensor | None
    read: Tensor | None
    read_bias: Tensor | None
    canvas: Tensor
    h_encoder: Tensor
    h_decoder: Tensor


class Options(NamedTuple):
    read_size: int
    write_size: int
    dtype: torch.dtype  # of the products
    keep: bool
    keep_canvases: bool
    backend: str


class Arguments(NamedTuple):
    """The operator's. Without x noise is the latent sample; labels [B] where the model is conditional."""

    x: Tensor | None
    noise: Tensor
    labels: Tensor | None
    layers: Layers
    options: Options


class Saved(NamedTuple):
    """What autograd keeps."""

    x: Tensor | None
    noise: Tensor
    labels: Tensor | None
    layers: Layers
    tape: Tape


class GradientOptions(NamedTuple):
    need_x: bool
    need_noise: bool
    read_size: int
    write_size: int
    dtype: torch.dtype
    backend: str


class GradientArguments(NamedTuple):
    """Those of the operator's gradient."""

    grad_canvas: Tensor
    grad_kl: Tensor
    x: Tensor | None
    noise: Tensor
    layers: Layers
    tape: Tape
    options: GradientOptions


class Gradients(NamedTuple):
    """Its results: empty tensors for those that are not wanted, or not there."""

    x: Tensor
    noise: Tensor
    layers: Layers
