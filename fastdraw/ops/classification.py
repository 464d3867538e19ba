"""All glimpses of the classifier as one operator with a gradient by hand, on pieces that DRAW's recurrence has too.

Forward, glimpse t (the paper's equations in brackets):
    head   params_t = h_{t-1} W + b (21)
    read   r_t = read(x, params_t) (27)
    lstm   h_t = LSTM([r_t, h_{t-1}])
and once at the end, by the same piece, logits = h_T W + b.

The LSTM's inputs are one buffer [T+1, B, R+h] = [r, h], and each piece writes into the columns that the next one reads. Where
no gradient is wanted it has two slots. Backward, only input gradients run through time; each weight's gradient is one product
over all T times B rows. Filters are made again there.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw import dispatch
from fastdraw.ops import registry
from fastdraw.reference import DRAWClassifier


class Weights(NamedTuple):
    """Each layer as one matrix with its bias; the initial state."""

    lstm: Tensor  # [4h, R + h]
    lstm_bias: Tensor
    head: Tensor  # [5, h]
    head_bias: Tensor
    output: Tensor  # [classes, h]
    output_bias: Tensor
    hidden: Tensor  # [h]


class Tape(NamedTuple):
    """What the forward pass leaves for the backward pass. Products' operands are in their dtype, states in float32."""

    params: Tensor  # [T, B, 5]
    inputs: Tensor  # [T + 1, B, R + h]
    gates: Tensor  # [T, B, 4h], activated: i, f, g, o
    c: Tensor  # [T + 1, B, h]


_COUNT = len(Weights._fields)


def classification(model: DRAWClassifier, x: Tensor, return_params: bool = False) -> tuple[Tensor, Tensor | None]:
    """Logits [B, classes], and the params [T, B, 5] of every window, without gradient, where they are asked for.

    x [B, C, H, W] in the dtype of the weights. Equal to the reference's; differentiable once in x and in all weights.
    """
    cell, state = model.lstm, model.initial_hidden.dtype
    weights = Weights(
        lstm=torch.cat([cell.weight_ih, cell.weight_hh], 1),
        lstm_bias=cell.bias_ih + cell.bias_hh,
        head=model.read_attention.weight,
        head_bias=model.read_attention.bias,
        output=model.output.weight,
        output_bias=model.output.bias,
        hidden=model.initial_hidden,
    )
    autocast = torch.is_autocast_enabled(x.device.type) and state != torch.float64
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else state
    keep = return_params or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights)))
    sizes = (model.config.glimpses, model.config.read_size)
    logits, params, *_ = _classification(x, *weights, *sizes, dtype, keep, dispatch.current())
    return logits, params if return_params else None


def _make_tape(x: Tensor, w: Weights, steps: int, dtype: torch.dtype, keep: bool) -> Tape:
    """Empty buffers; without `keep` one slot or two serve all glimpses."""
    batch, states = x.shape[0], steps + 1 if keep else 2
    steps = steps if keep else 1
    return Tape(
        params=w.hidden.new_empty(steps, batch, 5),
        inputs=w.hidden.new_empty(states, batch, w.lstm.shape[1], dtype=dtype),
        gates=w.hidden.new_empty(steps, batch, w.lstm.shape[0], dtype=dtype),
        c=w.hidden.new_empty(states, batch, w.hidden.shape[0]),
    )


def _slot(buffer: Tensor, t: int) -> Tensor:
    return buffer[t % len(buffer)]


def _in_dtype(w: Weights, dtype: torch.dtype) -> Weights:
    """The products' matrices in the products' dtype; the initial state as it is."""
    cast = Weights(*(tensor.to(dtype).contiguous() for tensor in w))
    return cast._replace(hidden=w.hidden)


def _prepared(pieces: ModuleType, w: Weights, backward: bool) -> Weights:
    roles = {"lstm": "lstm", "head": "linear", "output": "linear"}
    return w._replace(**{name: pieces.prepared([getattr(w, name)], role, backward) for name, role in roles.items()})


def _glimpses(
    kernels: ModuleType, pieces: ModuleType, x: Tensor, w: Weights, size: int, steps: int, tape: Tape, logits: Tensor
) -> None:
    """All glimpses, into the tape, and the logits."""
    columns = w.lstm.shape[1] - w.hidden.shape[0]
    w = _prepared(pieces, w, backward=False)
    tape.inputs[0, :, columns:] = w.hidden
    # What no glimpse fills is zero all the same: the tape is a result, and holds no uninitialised memory.
    tape.inputs[-1, :, :columns] = 0
    tape.c[0].zero_()
    for t in range(steps):
        inputs, params, after = _slot(tape.inputs, t), _slot(tape.params, t), _slot(tape.inputs, t + 1)[:, columns:]
        pieces.head(inputs[:, columns:], w.head, w.head_bias, params)
        inputs[:, :columns] = kernels.read(x, params, size, 1).flatten(1)
        c, c_new = _slot(tape.c, t), _slot(tape.c, t + 1)
        pieces.lstm(inputs, w.lstm, w.lstm_bias, c, _slot(tape.gates, t), c_new, [after])
    pieces.head(_slot(tape.inputs, steps)[:, columns:], w.output, w.output_bias, logits)


def _glimpses_backward(
    kernels: ModuleType, pieces: ModuleType, grad_logits: Tensor, x: Tensor, w: Weights, size: int, tape: Tape, need_x: bool
) -> tuple[Tensor | None, Weights]:
    """The reverse of `_glimpses`: gradients to x, where needed, and to the weights, in the dtype of states."""
    steps, batch = tape.params.shape[:2]
    columns, state = w.lstm.shape[1] - w.hidden.shape[0], tape.c.dtype
    grads = Weights(*(torch.zeros_like(tensor, dtype=state) for tensor in w))
    grad_x = torch.zeros_like(x) if need_x else None
    grad_logits = grad_logits.to(w.output.dtype).contiguous()
    grad_gates, grad_params = w.lstm.new_empty(tape.gates.shape), w.head.new_empty(tape.params.shape)
    # The gradients of one glimpse's inputs and of the cell begin at zero: nothing comes after the last glimpse.
    grad_inputs, grad_c = w.lstm.new_zeros(batch, w.lstm.shape[1]), torch.zeros_like(tape.c[0])
    through = grad_inputs[:, columns:]
    w = _prepared(pieces, w, backward=True)
    # A state places the next window; the last one tells the class instead.
    arrives, layer = grad_logits, w.output
    for t in range(steps - 1, -1, -1):
        gates = grad_gates[t]
        pieces.lstm_backward(arrives, layer, [through], tape.gates[t], tape.c[t], tape.c[t + 1], grad_c, gates)
        pieces.input_backward(gates, w.lstm, grad_inputs)
        grad_r = grad_inputs[:, :columns].to(x.dtype).contiguous().view(batch, x.shape[1], size, size)
        grad_image, grad_window = kernels.read_backward(grad_r, x, tape.params[t], 1, need_x)
        if grad_x is not None:
            grad_x.add_(grad_image)
        grad_params[t] = grad_window
        arrives, layer = grad_params[t], w.head
    for grad, inputs, weight, bias in (
        (grad_gates, tape.inputs[:-1], grads.lstm, grads.lstm_bias),
        (grad_params, tape.inputs[:-1, :, columns:], grads.head, grads.head_bias),
        (grad_logits[None], tape.inputs[-1:, :, columns:], grads.output, grads.output_bias),
    ):
        pieces.weight_gradient(grad.flatten(0, 1), inputs.flatten(0, 1), [weight], bias)
    through_head = torch.empty_like(through, memory_format=torch.contiguous_format)
    pieces.input_backward(arrives, layer, through_head)
    for part in (through, through_head):
        grads.hidden.add_(part.sum(0, dtype=state))
    return grad_x, grads


def _forward(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    w, (steps, size, dtype, _, backend) = Weights(*arguments[:_COUNT]), arguments[_COUNT:]
    outputs = _empty(x, *arguments)
    tape, logits = Tape(*outputs[1:]), outputs[0]
    if x.shape[0]:
        modules = dispatch.kernels(backend, x.device.type), dispatch.pieces(backend, x.device.type)
        _glimpses(*modules, x.contiguous(), _in_dtype(w, dtype), size, steps, tape, logits)
    return outputs


def _empty(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The logits and the tape, empty."""
    w, (steps, _, dtype, keep, _) = Weights(*arguments[:_COUNT]), arguments[_COUNT:]
    return w.hidden.new_empty(x.shape[0], w.output.shape[0]), *_make_tape(x, w, steps, dtype, keep)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (_, size, dtype, _, backend) = inputs[: 1 + _COUNT], inputs[1 + _COUNT :]
    ctx.mark_non_differentiable(*output[1:])
    # Otherwise the engine would make a gradient of zeros for every buffer of the tape.
    ctx.set_materialize_grads(False)
    ctx.options = (size, dtype, backend)
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(ctx: Any, grad_logits: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_logits is None:
        return (None,) * (1 + _COUNT + 5)
    need_x = ctx.needs_input_grad[0]
    grad_x, *grads = _classification_backward(grad_logits, *ctx.saved_tensors, need_x, *ctx.options)
    return (grad_x if need_x else None, *grads, *(None,) * 5)


def _gradient(grad_logits: Tensor, x: Tensor, *arguments: Any) -> list[Tensor]:
    w, kept, (need_x, size, dtype, backend) = Weights(*arguments[:_COUNT]), arguments[_COUNT:-4], arguments[-4:]
    if x.shape[0] == 0:
        return [torch.zeros_like(tensor) for tensor in _gradient_fake(grad_logits, x, *arguments)]
    modules = dispatch.kernels(backend, x.device.type), dispatch.pieces(backend, x.device.type)
    w = _in_dtype(w, dtype)
    grad_x, grads = _glimpses_backward(*modules, grad_logits, x.contiguous(), w, size, Tape(*kept), need_x)
    return [x.new_empty(0) if grad_x is None else grad_x, *grads]


def _gradient_fake(grad_logits: Tensor, x: Tensor, *arguments: Any) -> list[Tensor]:
    need_x = arguments[-4]
    return [x.new_empty(x.shape if need_x else 0), *(tensor.new_empty(tensor.shape) for tensor in arguments[:_COUNT])]


_WEIGHTS = ", ".join(f"Tensor {name}" for name in Weights._fields)
_TAPE = ", ".join(f"Tensor tape_{name}" for name in Tape._fields)
_classification_backward = registry.register(
    f"classification_backward(Tensor grad_logits, Tensor x, {_WEIGHTS}, {_TAPE}, bool need_x, int size, ScalarType dtype,"
    " str backend) -> Tensor[]",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("DRAWClassifier"),
)
_classification = registry.register(
    f"classification(Tensor x, {_WEIGHTS}, int glimpses, int size, ScalarType dtype, bool keep, str backend)"
    f" -> (Tensor logits, {_TAPE})",
    _forward,
    _empty,
    setup_context=_setup,
    backward=_backward,
)
