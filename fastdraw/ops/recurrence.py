"""All glimpses of DRAW as one operator with a gradient by hand; fastdraw/ops/glimpses.py has the loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdraw import dispatch
from fastdraw.ops import glimpses, registry
from fastdraw.ops.glimpses import Shape, Tape, Weights
from fastdraw.reference import DRAW, Recurrence, Trajectory, Window, window

_COUNT = len(Weights._fields)


def recurrence(model: DRAW, x: Tensor | None, noise: Tensor, return_trajectory: bool = False) -> Recurrence:
    """Equations 3 to 8 and 11 for all T glimpses of `model`; with x None, 13 to 15, where noise itself is the latent sample.

    x [B, C, H, W] in the dtype of the weights, or None;  noise [T, B, Z].

    Gives Recurrence(canvas [B, C, H, W] logits, kl [T, B] nats or None, trajectory or None, latent [T, B, 2Z] or None), equal
    to the reference's; trajectory and latent carry no gradient. Differentiable once in x, noise, and all weights and initial
    states.
    """
    weights = _joined(model, x is not None)
    state = weights.canvas.dtype
    x, noise = None if x is None else x.to(state), noise.to(state)
    autocast = torch.is_autocast_enabled(noise.device.type) and state != torch.float64
    dtype = torch.get_autocast_dtype(noise.device.type) if autocast else state
    inputs = [tensor for tensor in (x, noise, *weights) if tensor is not None]
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    keep_canvases = return_trajectory or (keep and model.canvas_memory == "keep")
    sizes = (model.config.read_size or 0, model.config.write_size or 0)
    options = (*sizes, dtype, keep or return_trajectory, keep_canvases, dispatch.current())
    tape = Tape(*_recurrence(x, noise, *weights, *options))
    trajectory = _trajectory(tape, _shape(noise, weights, *sizes), x is not None) if return_trajectory else None
    kl, latent = (None, None) if x is None else (tape.kl, tape.latent)
    return Recurrence(tape.canvas, kl, trajectory, latent)


def _joined(model: DRAW, infers: bool) -> Weights:
    """The model's layers as the loop takes them: one matrix for each piece's product."""
    encoder, decoder = model.encoder, model.decoder
    heads = [model.patch]
    if model.config.write_size is not None:
        heads.append(model.write_attention)
    if infers and model.config.read_size is not None:
        heads.append(model.read_attention)
    return Weights(
        encoder=torch.cat([encoder.weight_ih, encoder.weight_hh], 1),
        encoder_bias=encoder.bias_ih + encoder.bias_hh,
        latent=model.latent.weight,
        latent_bias=model.latent.bias,
        decoder=torch.cat([decoder.weight_ih, decoder.weight_hh], 1),
        decoder_bias=decoder.bias_ih + decoder.bias_hh,
        head=torch.cat([layer.weight for layer in heads]),
        head_bias=torch.cat([layer.bias for layer in heads]),
        canvas=model.initial_canvas,
        h_encoder=model.initial_encoder,
        h_decoder=model.initial_decoder,
    )


def _trajectory(tape: Tape, s: Shape, infers: bool) -> Trajectory:
    canvases = torch.cat([tape.canvases[1:], tape.canvas[None]])
    params, size = tape.head[:, :, s.patch_numel :], (s.height, s.width)
    writes: Window | None = window(params[1:, :, :5], s.write_size, size) if s.write_size else None
    reads: Window | None = window(params[:-1, :, -5:], s.read_size, size) if s.read_size and infers else None
    return Trajectory(canvases, writes, reads, *(tape.latent.chunk(2, dim=-1) if infers else (None, None)))


def _shape(noise: Tensor, weights: Weights, read_size: int, write_size: int) -> Shape:
    steps, batch, latent = noise.shape
    channels, height, width = weights.canvas.shape
    return Shape(steps, batch, channels, height, width, weights.h_decoder.shape[0], latent, read_size, write_size)


def _in_dtype(weights: Weights, dtype: torch.dtype) -> Weights:
    """The products' matrices in the products' dtype; initial states as they are."""
    states = weights[_COUNT - 3 :]
    return Weights(*(tensor.to(dtype).contiguous() for tensor in weights[: _COUNT - 3]), *states)


def _forward(x: Tensor | None, noise: Tensor, *arguments: Any) -> Tape:
    weights, (read_size, write_size, dtype, keep, keep_canvases, backend) = Weights(*arguments[:_COUNT]), arguments[_COUNT:]
    shape = _shape(noise, weights, read_size, write_size)
    tape = glimpses.make_tape(shape, weights.canvas, dtype, keep, keep_canvases, x is not None)
    if shape.batch:
        pieces = dispatch.pieces(backend, noise.device.type)
        x = None if x is None else x.contiguous()
        glimpses.forward(pieces, x, noise.contiguous(), _in_dtype(weights, dtype), shape, tape)
    return tape


def _fake(x: Tensor | None, noise: Tensor, *arguments: Any) -> Tape:
    weights, (read_size, write_size, dtype, keep, keep_canvases, _) = Weights(*arguments[:_COUNT]), arguments[_COUNT:]
    shape = _shape(noise, weights, read_size, write_size)
    return glimpses.make_tape(shape, weights.canvas, dtype, keep, keep_canvases, x is not None)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (read_size, write_size, dtype, _, _, backend) = inputs[: 2 + _COUNT], inputs[2 + _COUNT :]
    ctx.mark_non_differentiable(*output[2:])
    # Otherwise the engine would make a gradient of zeros for every buffer of the tape: as much memory again.
    ctx.set_materialize_grads(False)
    ctx.options = (read_size, write_size, dtype, backend)
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad_canvas: Tensor | None, grad_kl: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    # Asked for once: checkpointing recomputes what is saved at every asking.
    saved = ctx.saved_tensors
    canvas, kl = saved[2 + _COUNT : 4 + _COUNT]
    grad_canvas = torch.zeros_like(canvas) if grad_canvas is None else grad_canvas
    grad_kl = torch.zeros_like(kl) if grad_kl is None else grad_kl
    need_x, need_noise, *_ = ctx.needs_input_grad
    grad_x, grad_noise, *grads = _recurrence_backward(grad_canvas, grad_kl, *saved, need_x, need_noise, *ctx.options)
    return (grad_x if need_x else None, grad_noise if need_noise else None, *grads, *(None,) * 6)


def _gradient(grad_canvas: Tensor, grad_kl: Tensor, x: Tensor | None, noise: Tensor, *arguments: Any) -> list[Tensor]:
    weights, tape = Weights(*arguments[:_COUNT]), Tape(*arguments[_COUNT : 2 * _COUNT])
    need_x, need_noise, read_size, write_size, dtype, backend = arguments[2 * _COUNT :]
    shape = _shape(noise, weights, read_size, write_size)
    if shape.batch == 0:
        return [torch.zeros_like(tensor) for tensor in _gradient_fake(grad_canvas, grad_kl, x, noise, *arguments)]
    pieces, cast = dispatch.pieces(backend, noise.device.type), _in_dtype(weights, dtype)
    x = None if x is None else x.contiguous()
    grads = glimpses.backward(pieces, grad_canvas, grad_kl, x, noise.contiguous(), cast, shape, tape, need_x, need_noise)
    empty = noise.new_empty(0)
    return [empty if grads.x is None else grads.x, empty if grads.noise is None else grads.noise, *grads.weights]


def _gradient_fake(grad_canvas: Tensor, grad_kl: Tensor, x: Tensor | None, noise: Tensor, *arguments: Any) -> list[Tensor]:
    need_x, need_noise = arguments[2 * _COUNT : 2 * _COUNT + 2]
    first = [noise.new_empty(x.shape if x is not None and need_x else 0), noise.new_empty(noise.shape if need_noise else 0)]
    return first + [tensor.new_empty(tensor.shape) for tensor in arguments[:_COUNT]]


# The tape happens to have as many fields as the weights; the schemas spell both out.
_WEIGHTS = ", ".join(f"Tensor {name}" for name in Weights._fields)
_TAPE = ", ".join(f"Tensor tape_{name}" for name in Tape._fields)
_recurrence_backward = registry.register(
    f"recurrence_backward(Tensor grad_canvas, Tensor grad_kl, Tensor? x, Tensor noise, {_WEIGHTS}, {_TAPE}, bool need_x,"
    " bool need_noise, int read_size, int write_size, ScalarType dtype, str backend) -> Tensor[]",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("DRAW"),
)
_recurrence = registry.register(
    f"recurrence(Tensor? x, Tensor noise, {_WEIGHTS}, int read_size, int write_size, ScalarType dtype, bool keep,"
    f" bool keep_canvases, str backend) -> ({', '.join('Tensor' for _ in Tape._fields)})",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
)
