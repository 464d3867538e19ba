"""One LSTM step as one operator, in nn.LSTMCell's layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import gate, registry
from fastdraw.ops.contract import wide_dtype


def lstm_step(
    x: Tensor, state: tuple[Tensor, Tensor], weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM with forget gates.

        i, f, g, o = x W_ih^T + b_ih + h W_hh^T + b_hh
        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(c')

    x          [B, I]
    state      (h, c), [B, H] each
    weight_ih  [4H, I], weight_hh [4H, H], bias_ih [4H], bias_hh [4H]: rows i, f, g, o, as in nn.LSTMCell.

    All of one floating dtype, but c, which is taken and given in float32 (float64 where the rest is float64). Gives (h', c').
    Under torch.autocast the products run in autocast's dtype, h' comes in it, and c' stays float32. Differentiable once in
    every tensor.

    Raises TypeError or ValueError, naming the argument, for integers, other shapes, two dtypes or two devices.
    """
    checks.check_tensor("x", x, "B", "I")
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise checks.expected("state", "(h, c)", state, TypeError)
    h, c = state
    _check(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh)
    if dispatch.current() == "reference":
        return reference.lstm_step(x, (h, c), weight_ih, weight_hh, bias_ih, bias_hh)
    c = gate.converted("c", c, wide_dtype(x.dtype))
    h, c, _ = _lstm_step(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, dispatch.current())
    return h, c


def _check(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, *_: Any
) -> None:
    checks.check_tensor("x", x, "B", "I")
    batch, inputs = x.shape
    checks.check_tensor("h", h, batch, "H")
    hidden = h.shape[1]
    checks.check_tensor("c", c, batch, hidden)
    checks.check_tensor("weight_ih", weight_ih, 4 * hidden, inputs)
    checks.check_tensor("weight_hh", weight_hh, 4 * hidden, hidden)
    checks.check_tensor("bias_ih", bias_ih, 4 * hidden)
    checks.check_tensor("bias_hh", bias_hh, 4 * hidden)
    others = {"h": h, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    autocast = registry.autocast_dtype(x.device.type) is not None
    for name, tensor in {**others, "c": c}.items():
        checks.check_same("device", "x", x, name, tensor)
        if name != "c" and not autocast:
            checks.check_same("dtype", "x", x, name, tensor)


_CONVERTED = ("x", "h", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
_NAMES = ("x", "h", "c", "weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _forward(x: Tensor, h: Tensor, c: Tensor, *weights_and_backend: Any) -> tuple[Tensor, Tensor, Tensor]:
    *weights, backend = weights_and_backend
    if c.dtype != wide_dtype(x.dtype):
        raise checks.expected("c", f"{wide_dtype(x.dtype)}".removeprefix("torch."), c, TypeError)
    for name, tensor in zip(_NAMES, (x, h, c, *weights), strict=True):
        checks.check_memory(name, tensor)
    if x.shape[0] == 0 or h.shape[1] == 0:
        return _fake(x, h, c)
    tensors = (tensor.contiguous() for tensor in (x, h, c, *weights))
    return dispatch.kernels(backend, x.device.type).lstm_step(*tensors)


def _fake(x: Tensor, h: Tensor, c: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(h.shape), c.new_empty(c.shape), c.new_empty(c.shape[0], 4 * c.shape[1])


def _gradient(
    grad_h: Tensor,
    grad_c: Tensor,
    gates: Tensor,
    c: Tensor,
    c_new: Tensor,
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    backend: str,
) -> tuple[Tensor, ...]:
    # What autograd kept comes back through hooks, which may give something else.
    batch, inputs, hidden = (*x.shape, h.shape[-1] if h.dim() else 0) if x.dim() == 2 else (0, 0, 0)
    state, given = (wide_dtype(x.dtype),), (x.dtype,)
    whole, gates_shape = (batch, hidden), (batch, 4 * hidden)
    for name, tensor, shape, dtypes in (
        ("grad_h", grad_h, whole, None),
        ("grad_c", grad_c, whole, None),
        ("gates", gates, gates_shape, state),
        ("c", c, whole, state),
        ("c_new", c_new, whole, state),
        ("x", x, (batch, inputs), gate.DTYPES),
        ("h", h, whole, given),
        ("weight_ih", weight_ih, (4 * hidden, inputs), given),
        ("weight_hh", weight_hh, (4 * hidden, hidden), given),
    ):
        gate.check(name, tensor, x, shape, dtypes)
    if x.shape[0] == 0 or h.shape[1] == 0:
        tensors = (x, h, c, weight_ih, weight_hh)
        return *(torch.zeros_like(tensor) for tensor in tensors), weight_ih.new_zeros(weight_ih.shape[0])
    arguments = (grad_h, grad_c, gates, c, c_new, x, h, weight_ih, weight_hh)
    kernels = dispatch.kernels(backend, x.device.type)
    return kernels.lstm_step_backward(*(tensor.contiguous() for tensor in arguments))


def _gradient_fake(
    grad_h: Tensor,
    grad_c: Tensor,
    gates: Tensor,
    c: Tensor,
    c_new: Tensor,
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    backend: str,
) -> tuple[Tensor, ...]:
    empty = (tensor.new_empty(tensor.shape) for tensor in (x, h, c, weight_ih, weight_hh))
    return *empty, weight_ih.new_empty(weight_ih.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, h, c, weight_ih, weight_hh, _, _, ctx.backend = inputs
    _, c_new, gates = output
    ctx.mark_non_differentiable(gates)
    # Otherwise the engine would make a gradient of zeros for the gates.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(gates, c, c_new, x, h, weight_ih, weight_hh)


def _backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    _, c, _, _, h, *_ = saved
    grad_h = torch.zeros_like(h) if grad_h is None else grad_h
    grad_c = torch.zeros_like(c) if grad_c is None else grad_c
    *grads, grad_bias = _lstm_step_backward(grad_h, grad_c, *saved, ctx.backend)
    return *grads, grad_bias, grad_bias, None


def _autocast(dtype: torch.dtype, x: Tensor, h: Tensor, c: Tensor, *weights_and_backend: Any) -> tuple[Any, ...]:
    *weights, backend = weights_and_backend
    if x.dtype == torch.float64:
        return (x, h, c, *weights, backend)
    x, h, *weights = (gate.converted(*one, dtype) for one in zip(_CONVERTED, (x, h, *weights), strict=True))
    return (x, h, c, *weights, backend)


_lstm_step_backward = registry.register(
    "lstm_step_backward(Tensor grad_h, Tensor grad_c, Tensor gates, Tensor c, Tensor c_new, Tensor x, Tensor h,"
    " Tensor weight_ih, Tensor weight_hh, str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("lstm_step"),
)
_lstm_step = registry.register(
    "lstm_step(Tensor x, Tensor h, Tensor c, Tensor weight_ih, Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,"
    " str backend) -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
    autocast=_autocast,
    check=_check,
    folds=((0, 0, 0), (0, 0, 0)),
)
