"""All glimpses of DRAW as one operator with a gradient by hand; fastdraw/ops/glimpses.py has the loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fastdraw import dispatch
from fastdraw.ops import glimpses, registry
from fastdraw.ops.glimpses import Shape, Tape, WeightGradients, Weights
from fastdraw.reference import DRAW, Recurrence, Trajectory, Window, window


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


_COUNT = len(Layers._fields)


def recurrence(
    model: DRAW, x: Tensor | None, noise: Tensor, return_trajectory: bool = False, labels: Tensor | None = None
) -> Recurrence:
    """Equations 3 to 8 and 11 for all T glimpses of `model`; with x None, 13 to 15, where noise itself is the latent sample.

    x [B, C, H, W] in the dtype of the weights, or None;  noise [T, B, Z];  labels [B] for a class-conditional model.

    Gives Recurrence(canvas [B, C, H, W] logits, kl [T, B] nats or None, trajectory or None, latent [T, B, 2Z] or None), equal
    to the reference's; trajectory and latent carry no gradient. Differentiable once in x, noise, and all weights and initial
    states.
    """
    layers = _layers(model, x is not None)
    state = layers.canvas.dtype
    x, noise = None if x is None else x.to(state), noise.to(state)
    autocast = torch.is_autocast_enabled(noise.device.type) and state != torch.float64
    dtype = torch.get_autocast_dtype(noise.device.type) if autocast else state
    inputs = [tensor for tensor in (x, noise, *layers) if tensor is not None]
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    keep_canvases = return_trajectory or (keep and model.canvas_memory == "keep")
    sizes = (model.config.read_size or 0, model.config.write_size or 0)
    options = (*sizes, dtype, keep or return_trajectory, keep_canvases, dispatch.current())
    tape = Tape(*_recurrence(x, noise, labels, *layers, *options))
    trajectory = _trajectory(tape, _shape(noise, layers, *sizes), x is not None) if return_trajectory else None
    kl, latent = (None, None) if x is None else (tape.kl, tape.latent)
    return Recurrence(tape.canvas, kl, trajectory, latent)


def _layers(model: DRAW, infers: bool) -> Layers:
    config, encoder, decoder = model.config, model.encoder, model.decoder
    writes = model.write_attention if config.write_size is not None else None
    reads = model.read_attention if infers and config.read_size is not None else None
    return Layers(
        encoder_ih=encoder.weight_ih,
        encoder_hh=encoder.weight_hh,
        encoder_bias_ih=encoder.bias_ih,
        encoder_bias_hh=encoder.bias_hh,
        latent=model.latent.weight,
        latent_bias=model.latent.bias,
        decoder_ih=decoder.weight_ih,
        decoder_hh=decoder.weight_hh,
        decoder_bias_ih=decoder.bias_ih,
        decoder_bias_hh=decoder.bias_hh,
        patch=model.patch.weight,
        patch_bias=model.patch.bias,
        write=writes.weight if writes else None,
        write_bias=writes.bias if writes else None,
        read=reads.weight if reads else None,
        read_bias=reads.bias if reads else None,
        canvas=model.initial_canvas,
        h_encoder=model.initial_encoder,
        h_decoder=model.initial_decoder,
    )


def _joined(m: Layers, dtype: torch.dtype) -> Weights:
    """What each product of the loop multiplies with, in the products' dtype; initial states as they are."""

    def join(*tensors: Tensor | None) -> Tensor:
        there = [tensor.to(dtype) for tensor in tensors if tensor is not None]
        return torch.cat(there) if len(there) > 1 else there[0].contiguous()

    return Weights(
        encoder=(m.encoder_ih.to(dtype), m.encoder_hh.to(dtype)),
        encoder_bias=(m.encoder_bias_ih + m.encoder_bias_hh).to(dtype),
        latent=(m.latent.to(dtype),),
        latent_bias=join(m.latent_bias),
        decoder=(m.decoder_ih.to(dtype), m.decoder_hh.to(dtype)),
        decoder_bias=(m.decoder_bias_ih + m.decoder_bias_hh).to(dtype),
        head=(join(m.patch, m.write, m.read),),
        head_bias=join(m.patch_bias, m.write_bias, m.read_bias),
        canvas=m.canvas,
        h_encoder=m.h_encoder,
        h_decoder=m.h_decoder,
    )


def _apart(grads: WeightGradients, m: Layers) -> list[Tensor]:
    """The gradient of every layer that there is, each in memory of its own."""
    rows = [tensor.shape[0] for tensor in (m.patch, m.write, m.read) if tensor is not None]
    heads = zip(grads.head.split(rows), grads.head_bias.split(rows), strict=True)
    return [
        *grads.encoder,
        grads.encoder_bias,
        grads.encoder_bias.clone(),
        grads.latent,
        grads.latent_bias,
        *grads.decoder,
        grads.decoder_bias,
        grads.decoder_bias.clone(),
        *(tensor.clone() for head in heads for tensor in head),
        grads.canvas,
        grads.h_encoder,
        grads.h_decoder,
    ]


def _trajectory(tape: Tape, s: Shape, infers: bool) -> Trajectory:
    canvases = torch.cat([tape.canvases[1:], tape.canvas[None]])
    params, size = tape.head[:, :, s.patch_numel :], (s.height, s.width)
    writes: Window | None = window(params[1:, :, :5], s.write_size, size) if s.write_size else None
    reads: Window | None = window(params[:-1, :, -5:], s.read_size, size) if s.read_size and infers else None
    return Trajectory(canvases, writes, reads, *(tape.latent.chunk(2, dim=-1) if infers else (None, None)))


def _shape(noise: Tensor, layers: Layers, read_size: int, write_size: int) -> Shape:
    steps, batch, latent = noise.shape
    channels, height, width = layers.canvas.shape
    classes = layers.decoder_ih.shape[1] - latent
    return Shape(steps, batch, channels, height, width, len(layers.h_decoder), latent, read_size, write_size, classes)


def _classes(labels: Tensor | None, shape: Shape) -> Tensor | None:
    """[B, K], zeros and a one."""
    return None if labels is None else one_hot(labels, shape.classes)


def _forward(x: Tensor | None, noise: Tensor, labels: Tensor | None, *arguments: Any) -> Tape:
    layers, (read_size, write_size, dtype, keep, keep_canvases, backend) = Layers(*arguments[:_COUNT]), arguments[_COUNT:]
    shape, infers = _shape(noise, layers, read_size, write_size), x is not None
    pieces = dispatch.pieces(backend, noise.device.type)
    tape = glimpses.make_tape(shape, layers.canvas, dtype, keep, keep_canvases, infers, pieces.new_buffers)
    if shape.batch:
        x = None if x is None else x.contiguous()
        # In one expression, so that copies of weights do not live on beside what a backend made of them.
        weights = glimpses.prepared(pieces, _joined(layers, dtype), infers, backward=False)
        glimpses.forward(pieces, x, noise.contiguous(), _classes(labels, shape), weights, shape, tape)
    return tape


def _fake(x: Tensor | None, noise: Tensor, labels: Tensor | None, *arguments: Any) -> Tape:
    layers, (read_size, write_size, dtype, keep, keep_canvases, _) = Layers(*arguments[:_COUNT]), arguments[_COUNT:]
    shape = _shape(noise, layers, read_size, write_size)
    return glimpses.make_tape(shape, layers.canvas, dtype, keep, keep_canvases, x is not None, glimpses.plain_buffers)


#: x, noise and labels, which stand before the layers.
_FIRST = 3


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (read_size, write_size, dtype, _, _, backend) = inputs[: _FIRST + _COUNT], inputs[_FIRST + _COUNT :]
    ctx.mark_non_differentiable(*output[2:])
    # Otherwise the engine would make a gradient of zeros for every buffer of the tape: as much memory again.
    ctx.set_materialize_grads(False)
    ctx.options = (read_size, write_size, dtype, backend)
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_canvas: Tensor | None, grad_kl: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    # Asked for once: checkpointing recomputes what is saved at every asking.
    saved = ctx.saved_tensors
    canvas, kl = saved[_FIRST + _COUNT : _FIRST + _COUNT + 2]
    grad_canvas = torch.zeros_like(canvas) if grad_canvas is None else grad_canvas
    grad_kl = torch.zeros_like(kl) if grad_kl is None else grad_kl
    need_x, need_noise, *_ = ctx.needs_input_grad
    arguments = [tensor for i, tensor in enumerate(saved) if i != 2]
    grad_x, grad_noise, *apart = _recurrence_backward(grad_canvas, grad_kl, *arguments, need_x, need_noise, *ctx.options)
    grads = iter(apart)
    layers = [None if tensor is None else next(grads) for tensor in saved[_FIRST : _FIRST + _COUNT]]
    return (grad_x if need_x else None, grad_noise if need_noise else None, None, *layers, *(None,) * 6)


def _gradient(grad_canvas: Tensor, grad_kl: Tensor, x: Tensor | None, noise: Tensor, *arguments: Any) -> list[Tensor]:
    layers, tape = Layers(*arguments[:_COUNT]), Tape(*arguments[_COUNT : _COUNT + len(Tape._fields)])
    need_x, need_noise, read_size, write_size, dtype, backend = arguments[_COUNT + len(Tape._fields) :]
    shape = _shape(noise, layers, read_size, write_size)
    if shape.batch == 0:
        return [torch.zeros_like(tensor) for tensor in _gradient_fake(grad_canvas, grad_kl, x, noise, *arguments)]
    pieces, x = dispatch.pieces(backend, noise.device.type), None if x is None else x.contiguous()
    weights = glimpses.prepared(pieces, _joined(layers, dtype), x is not None, backward=True)
    grads = glimpses.backward(pieces, grad_canvas, grad_kl, x, noise.contiguous(), weights, shape, tape, need_x, need_noise)
    empty = noise.new_empty(0)
    first = [empty if grads.x is None else grads.x, empty if grads.noise is None else grads.noise]
    return first + _apart(grads.weights, layers)


def _gradient_fake(grad_canvas: Tensor, grad_kl: Tensor, x: Tensor | None, noise: Tensor, *arguments: Any) -> list[Tensor]:
    need_x, need_noise = arguments[_COUNT + len(Tape._fields) :][:2]
    first = [noise.new_empty(x.shape if x is not None and need_x else 0), noise.new_empty(noise.shape if need_noise else 0)]
    return first + [tensor.new_empty(tensor.shape) for tensor in arguments[:_COUNT] if tensor is not None]


_OPTIONAL = ("write", "write_bias", "read", "read_bias")
_LAYERS = ", ".join(f"Tensor{'?' if name in _OPTIONAL else ''} {name}" for name in Layers._fields)
_TAPE = ", ".join(f"Tensor tape_{name}" for name in Tape._fields)
_recurrence_backward = registry.register(
    f"recurrence_backward(Tensor grad_canvas, Tensor grad_kl, Tensor? x, Tensor noise, {_LAYERS}, {_TAPE}, bool need_x,"
    " bool need_noise, int read_size, int write_size, ScalarType dtype, str backend) -> Tensor[]",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("DRAW"),
)
_recurrence = registry.register(
    f"recurrence(Tensor? x, Tensor noise, Tensor? labels, {_LAYERS}, int read_size, int write_size, ScalarType dtype,"
    f" bool keep, bool keep_canvases, str backend) -> ({', '.join('Tensor' for _ in Tape._fields)})",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
)
