"""All glimpses of the classifier as one operator with a gradient by hand, on pieces that DRAW's recurrence has too.

Forward, glimpse t (the paper's equations in brackets):
    linear   params_t = h_{t-1} W + b (21)
    read     r_t = read(x, params_t) (27)
    cell     h_t = LSTM([r_t, h_{t-1}])
and once at the end, by the same piece, logits = h_T W + b.

The LSTM's inputs are one buffer [T+1, B, R+h] = [r, h], and each piece writes into the columns that the next one reads. Where
no gradient is wanted it has two slots. Backward, only input gradients run through time; each weight's gradient is one product
over all T times B rows. Filters are made again there.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw import checks, dispatch
from fastdraw.layers import weights as weights_of
from fastdraw.ops import gate, registry
from fastdraw.ops.contract import Backend, Pieces, wide_dtype
from fastdraw.ops.records import flat, named, nothing, schema, tensors
from fastdraw.reference import DRAWClassifier


class Layers(NamedTuple):
    """The model's own parameters."""

    lstm_ih: Tensor  # [4h, R]
    lstm_hh: Tensor  # [4h, h]
    lstm_bias_ih: Tensor
    lstm_bias_hh: Tensor
    head: Tensor  # [5, h]
    head_bias: Tensor
    output: Tensor  # [classes, h]
    output_bias: Tensor
    hidden: Tensor  # [h]


class Weights(NamedTuple):
    """Each layer as one matrix with its bias, in the dtype of the products; the initial state."""

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


class Options(NamedTuple):
    glimpses: int
    size: int
    dtype: torch.dtype  # of the products
    keep: bool
    backend: str


class Arguments(NamedTuple):
    """The operator's."""

    x: Tensor
    layers: Layers
    options: Options


class Saved(NamedTuple):
    """What autograd keeps."""

    x: Tensor
    layers: Layers
    tape: Tape


class Results(NamedTuple):
    logits: Tensor
    tape: Tape


class GradientOptions(NamedTuple):
    need_x: bool
    size: int
    dtype: torch.dtype
    backend: str


class GradientArguments(NamedTuple):
    """Those of the operator's gradient."""

    grad_logits: Tensor
    x: Tensor
    layers: Layers
    tape: Tape
    options: GradientOptions


class Gradients(NamedTuple):
    """Its results: an empty tensor for x where it is not wanted."""

    x: Tensor
    layers: Layers


def classification(
    model: DRAWClassifier, x: Tensor, return_params: bool = False, glimpses: int | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """Logits [B, classes], and the params [T, B, 5] of every window, without gradient, where they are asked for.

    x [B, C, H, W]; glimpses: T, the model's own where None. Equal to the reference's; differentiable once in x and in all
    weights. Products run in the dtype of the
    weights, the widest where they differ, or in autocast's; states and results are float64 where that is, and float32
    otherwise.

    None, and nothing computed, where a layer is more than its weights (fastdraw/layers.py). Raises ValueError or TypeError,
    naming the layer, where one is of another size than the model's configuration has.
    """
    found = weights_of(model, model.layer_kinds())
    if found is None:
        return None
    layers = Layers._make([*found, model.initial_hidden])
    c = model.config
    gate.check_layers(_PATHS, layers, _shapes(c.hidden_size, c.read_numel, c.num_classes), x.device)
    dtype = gate.common_dtype(layers)
    state = wide_dtype(dtype)
    if state != torch.float64:
        dtype = registry.autocast_dtype(x.device.type) or dtype
    x = gate.converted("x", x, state)
    keep = return_params or registry.backward_may_follow((x, *layers))
    options = Options(checks.check_glimpses(glimpses, c.glimpses), c.read_size, dtype, keep, dispatch.current())
    logits, *tape = _classification(*flat(Arguments(x, layers, options)))
    return logits, Tape._make(tape).params if return_params else None


#: Where the model keeps each of Layers.
_PATHS = (
    *(f"lstm.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    *(f"{layer}.{name}" for layer in ("read_attention", "output") for name in ("weight", "bias")),
    "initial_hidden",
)


def _shapes(hidden: int, columns: int, classes: int) -> list[tuple[int, ...]]:
    """Of each of Layers, in their order; `columns` of a read."""
    lstm = ((4 * hidden, columns), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
    return [*lstm, (5, hidden), (5,), (classes, hidden), (classes,), (hidden,)]


def _check(x: Tensor, w: Layers, steps: int, size: int, dtype: torch.dtype) -> None:
    """Whatever goes to the kernels is what the sizes say, in memory, in one place."""
    for name, dims in (("x", 4), ("hidden", 1), ("output", 2)):
        tensor = x if name == "x" else getattr(w, name)
        if tensor.dim() != dims or 0 in tensor.shape[name == "x" :]:
            raise checks.expected(name, f"{dims} dimensions, none of them empty", tensor)
    if dtype not in gate.DTYPES or min(steps, size) < 1:
        raise ValueError(f"expected a floating dtype, glimpses and a size of at least 1, got {dtype}, {steps} and {size}")
    shapes = _shapes(len(w.hidden), x.shape[1] * size * size, len(w.output))
    for name, tensor, shape in zip(Layers._fields, w, shapes, strict=True):
        gate.check(name, tensor, x, shape, gate.DTYPES)
    gate.check("x", x, x, x.shape, (wide_dtype(dtype),))


def _tape_form(
    x: Tensor, w: Layers, steps: int, dtype: torch.dtype, keep: bool
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Sizes and dtypes of a tape's buffers; without `keep` one slot or two serve all glimpses."""
    batch, states, state = x.shape[0], steps + 1 if keep else 2, wide_dtype(dtype)
    steps, hidden = steps if keep else 1, w.hidden.shape[0]
    return {
        "params": ((steps, batch, 5), state),
        "inputs": ((states, batch, w.lstm_ih.shape[1] + hidden), dtype),
        "gates": ((steps, batch, 4 * hidden), dtype),
        "c": ((states, batch, hidden), state),
    }


def _slot(buffer: Tensor, t: int) -> Tensor:
    return buffer[t % len(buffer)]


def _in_dtype(m: Layers, dtype: torch.dtype) -> Weights:
    """The products' matrices in the products' dtype; the initial state as it is."""
    return Weights(
        lstm=torch.cat([m.lstm_ih.to(dtype), m.lstm_hh.to(dtype)], 1),
        lstm_bias=(m.lstm_bias_ih + m.lstm_bias_hh).to(dtype),
        head=m.head.to(dtype).contiguous(),
        head_bias=m.head_bias.to(dtype).contiguous(),
        output=m.output.to(dtype).contiguous(),
        output_bias=m.output_bias.to(dtype).contiguous(),
        hidden=m.hidden,
    )


def _prepared(pieces: Pieces, w: Weights, backward: bool) -> Weights:
    roles = {"lstm": "cell", "head": "linear", "output": "linear"}
    return w._replace(**{name: pieces.prepared([getattr(w, name)], role, backward) for name, role in roles.items()})


def _glimpses(
    kernels: Backend, pieces: Pieces, x: Tensor, w: Weights, size: int, steps: int, tape: Tape, logits: Tensor
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
        pieces.linear(inputs[:, columns:], w.head, w.head_bias, params)
        inputs[:, :columns] = kernels.read(x, params, (size, size), 1).flatten(1)
        c, c_new = _slot(tape.c, t), _slot(tape.c, t + 1)
        pieces.cell(inputs, w.lstm, w.lstm_bias, c, _slot(tape.gates, t), c_new, [after])
    pieces.linear(_slot(tape.inputs, steps)[:, columns:], w.output, w.output_bias, logits)


def _glimpses_backward(
    kernels: Backend, pieces: Pieces, grad_logits: Tensor, x: Tensor, w: Weights, size: int, tape: Tape, need_x: bool
) -> tuple[Tensor | None, Weights]:
    """The reverse of `_glimpses`: gradients to x, where needed, and to the weights, in the dtype of states."""
    steps, batch = tape.params.shape[:2]
    columns, state = w.lstm.shape[1] - w.hidden.shape[0], tape.c.dtype
    grads = Weights._make(torch.zeros_like(tensor, dtype=state) for tensor in w)
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
        pieces.cell_backward(arrives, layer, [through], tape.gates[t], tape.c[t], tape.c[t + 1], grad_c, gates)
        pieces.input_backward(gates, w.lstm, grad_inputs)
        grad_r = grad_inputs[:, :columns].to(x.dtype).contiguous().view(batch, x.shape[1], size, size)
        grad_image, grad_window = kernels.read_backward(grad_r, x, tape.params[t], 1, need_x)
        if grad_x is not None and grad_image is not None:
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


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    x, layers, options = named(Arguments, arguments)
    _check(x, layers, options.glimpses, options.size, options.dtype)
    checks.check_where_compiled(x)
    results = _empty(x, layers, options)
    if x.shape[0]:
        modules = _modules(options, x)
        weights = _in_dtype(layers, options.dtype)
        _glimpses(*modules, x.contiguous(), weights, options.size, options.glimpses, results.tape, results.logits)
    return flat(results)


def _modules(options: Options | GradientOptions, x: Tensor) -> tuple[Backend, Pieces]:
    return dispatch.kernels(options.backend, x.device.type), dispatch.pieces(options.backend, x.device.type)


def _empty(x: Tensor, layers: Layers, options: Options) -> Results:
    form = _tape_form(x, layers, options.glimpses, options.dtype, options.keep)
    logits = x.new_empty(x.shape[0], layers.output.shape[0], dtype=wide_dtype(options.dtype))
    return Results(logits, Tape(**{name: x.new_empty(sizes, dtype=own) for name, (sizes, own) in form.items()}))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, layers, ctx.options = named(Arguments, inputs)
    tape = named(Results, output).tape
    ctx.mark_non_differentiable(*tape)
    # Otherwise the engine would make a gradient of zeros for every buffer of the tape.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*flat(Saved(x, layers, tape)))


def _backward(ctx: Any, grad_logits: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_logits is None:
        return flat(nothing(Arguments))
    saved, o, need_x = named(Saved, ctx.saved_tensors), ctx.options, ctx.needs_input_grad[0]
    options = GradientOptions(need_x, o.size, o.dtype, o.backend)
    given = GradientArguments(grad_logits, saved.x, saved.layers, saved.tape, options)
    grads = named(Gradients, _classification_backward(*flat(given)))
    return flat(nothing(Arguments)._replace(x=grads.x if need_x else None, layers=grads.layers))


def _gradient(*arguments: Any) -> tuple[Tensor, ...]:
    grad_logits, x, m, tape, options = named(GradientArguments, arguments)
    _check(x, m, tape.params.shape[0] if tape.params.dim() else 0, options.size, options.dtype)
    tape = gate.kept(tape, _tape_form(x, m, len(tape.params), options.dtype, keep=True), x)
    gate.check("grad_logits", grad_logits, x, (x.shape[0], len(m.output)), (wide_dtype(options.dtype),))
    if x.shape[0] == 0:
        return tuple(torch.zeros_like(tensor) for tensor in _gradient_fake(*arguments))
    modules, weights = _modules(options, x), _in_dtype(m, options.dtype)
    grad_x, g = _glimpses_backward(*modules, grad_logits, x.contiguous(), weights, options.size, tape, options.need_x)
    lstm_ih, lstm_hh = (part.contiguous() for part in g.lstm.split([m.lstm_ih.shape[1], len(m.hidden)], 1))
    wide = Layers(
        lstm_ih=lstm_ih,
        lstm_hh=lstm_hh,
        lstm_bias_ih=g.lstm_bias,
        lstm_bias_hh=g.lstm_bias.clone(),
        head=g.head,
        head_bias=g.head_bias,
        output=g.output,
        output_bias=g.output_bias,
        hidden=g.hidden,
    )
    layers = Layers._make(grad.to(own.dtype) for grad, own in zip(wide, m, strict=True))
    return flat(Gradients(x.new_empty(0) if grad_x is None else grad_x, layers))


def _gradient_fake(*arguments: Any) -> tuple[Tensor, ...]:
    _, x, layers, _, options = named(GradientArguments, arguments)
    grads = Layers._make(tensor.new_empty(tensor.shape) for tensor in layers)
    return flat(Gradients(x.new_empty(x.shape if options.need_x else 0), grads))


_classification_backward = registry.register(
    f"classification_backward({schema(GradientArguments, tape='tape_')}) -> ({tensors(Gradients)})",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("DRAWClassifier"),
)
_classification = registry.register(
    f"classification({schema(Arguments)}) -> ({schema(Results, tape='tape_')})",
    _forward,
    lambda *arguments: flat(_empty(*named(Arguments, arguments))),
    setup_context=_setup,
    backward=_backward,
    folds=((0,), (0, *(1 for _ in Tape._fields))),
)
