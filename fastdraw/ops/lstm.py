"""One LSTM step as one operator, in nn.LSTMCell's layout."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import gate, registry
from fastdraw.ops.contract import wide_dtype
from fastdraw.ops.records import named, schema


class Step(NamedTuple):
    """What a step is made of."""

    x: Tensor
    h: Tensor
    c: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


class Arguments(NamedTuple):
    step: Step
    backend: str


class GradientArguments(NamedTuple):
    grad_h: Tensor
    grad_c: Tensor
    gates: Tensor
    c: Tensor
    c_new: Tensor
    x: Tensor
    h: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    backend: str


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


def _forward(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    step = Step(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh)
    if c.dtype != wide_dtype(x.dtype):
        raise checks.expected("c", f"{wide_dtype(x.dtype)}".removeprefix("torch."), c, TypeError)
    for name, tensor in zip(Step._fields, step, strict=True):
        checks.check_memory(name, tensor)
    if x.shape[0] == 0 or h.shape[1] == 0:
        return _fake(*step)
    return dispatch.kernels(backend, x.device.type).lstm_step(*(tensor.contiguous() for tensor in step))


def _fake(x: Tensor, h: Tensor, c: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(h.shape), c.new_empty(c.shape), c.new_empty(c.shape[0], 4 * c.shape[1])


def _gradient(*arguments: Any) -> tuple[Tensor, ...]:
    a = GradientArguments._make(arguments)
    # What autograd kept comes back through hooks, which may give something else.
    batch, inputs, hidden = (*a.x.shape, a.h.shape[-1] if a.h.dim() else 0) if a.x.dim() == 2 else (0, 0, 0)
    state, given, whole = (wide_dtype(a.x.dtype),), (a.x.dtype,), (batch, hidden)
    forms: dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...] | None]] = {
        "grad_h": (whole, None),
        "grad_c": (whole, None),
        "gates": ((batch, 4 * hidden), state),
        "c": (whole, state),
        "c_new": (whole, state),
        "x": ((batch, inputs), gate.DTYPES),
        "h": (whole, given),
        "weight_ih": ((4 * hidden, inputs), given),
        "weight_hh": ((4 * hidden, hidden), given),
    }
    for name, (shape, dtypes) in forms.items():
        gate.check(name, getattr(a, name), a.x, shape, dtypes)
    if batch == 0 or hidden == 0:
        return tuple(torch.zeros_like(tensor) for tensor in _gradient_fake(*arguments))
    kernels = dispatch.kernels(a.backend, a.x.device.type)
    return kernels.lstm_step_backward(*(tensor.contiguous() for tensor in a[:-1]))


def _gradient_fake(*arguments: Any) -> tuple[Tensor, ...]:
    a = GradientArguments._make(arguments)
    tensors = (a.x, a.h, a.c, a.weight_ih, a.weight_hh)
    return *(tensor.new_empty(tensor.shape) for tensor in tensors), a.weight_ih.new_empty(a.weight_ih.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, h, c, weight_ih, weight_hh, _, _, ctx.backend = inputs
    _, c_new, gates = output
    ctx.mark_non_differentiable(gates)
    # Otherwise the engine would make a gradient of zeros for the gates.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(gates, c, c_new, x, h, weight_ih, weight_hh)


def _backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    gates, c, c_new, x, h, weight_ih, weight_hh = ctx.saved_tensors
    grad_h = torch.zeros_like(h) if grad_h is None else grad_h
    grad_c = torch.zeros_like(c) if grad_c is None else grad_c
    given = GradientArguments(grad_h, grad_c, gates, c, c_new, x, h, weight_ih, weight_hh, ctx.backend)
    *grads, grad_bias = _lstm_step_backward(*given)
    return *grads, grad_bias, grad_bias, None


def _autocast(dtype: torch.dtype, *arguments: Any) -> tuple[Any, ...]:
    step, backend = named(Arguments, arguments)
    if step.x.dtype == torch.float64:
        return arguments
    converted = {name: gate.converted(name, tensor, dtype) for name, tensor in step._asdict().items() if name != "c"}
    return *step._replace(**converted), backend


_lstm_step_backward = registry.register(
    f"lstm_step_backward({schema(GradientArguments)}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("lstm_step"),
)
_lstm_step = registry.register(
    f"lstm_step({schema(Arguments)}) -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
    autocast=_autocast,
    check=_check,
    folds=((0, 0, 0), (0, 0, 0)),
)
