"""All glimpses of DRAW as one operator with a gradient by hand; fastdraw/ops/glimpses.py has the loop."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fastdraw import checks, dispatch
from fastdraw.config import DRAWConfig
from fastdraw.layers import weights as weights_of
from fastdraw.ops import gate, glimpses, glimpses_backward, registry
from fastdraw.ops.contract import Shape, plain_buffers, wide_dtype
from fastdraw.ops.glimpses import Tape, Weights
from fastdraw.ops.glimpses_backward import WeightGradients
from fastdraw.ops.records import flat, named, nothing, schema, tensors
from fastdraw.ops.recurrence_records import Arguments, GradientArguments, GradientOptions, Gradients, Layers, Options, Saved
from fastdraw.outputs import Recurrence, Trajectory, Window
from fastdraw.reference import DRAW, window


def recurrence(
    model: DRAW, x: Tensor | None, noise: Tensor, return_trajectory: bool = False, labels: Tensor | None = None
) -> Recurrence | None:
    """Equations 3 to 8 and 11 for all T glimpses of `model`; with x None, 13 to 15, where noise itself is the latent sample.

    x [B, C, H, W], or None;  noise [T, B, Z];  labels [B] for a class-conditional model.

    Gives Recurrence(canvas [B, C, H, W] logits, kl [T, B] nats or None, trajectory or None, latent [T, B, 2Z] or None), equal
    to the reference's; trajectory and latent carry no gradient. Differentiable once in x, noise, and all weights and initial
    states. Products run in the dtype of the weights, the widest where they differ, or in autocast's; states and results are
    float64 where that is, and float32 otherwise.

    None, and nothing computed, where a layer is more than its weights (fastdraw/layers.py). Raises ValueError or TypeError,
    naming the layer, where one is of another size than the model's configuration has.
    """
    layers = _layers(model, x is not None)
    if layers is None:
        return None
    gate.check_layers(_PATHS, layers, _shapes(_config_shape(model.config), x is not None), noise.device)
    dtype = gate.common_dtype(layers)
    state = wide_dtype(dtype)
    x, noise = None if x is None else gate.converted("x", x, state), gate.converted("noise", noise, state)
    if state != torch.float64:
        dtype = registry.autocast_dtype(noise.device.type) or dtype
    keep = registry.backward_may_follow((x, noise, *layers))
    keep_canvases = return_trajectory or (keep and model.canvas_memory == "keep")
    sizes = (model.config.read_size or 0, model.config.write_size or 0)
    options = Options(*sizes, dtype, keep or return_trajectory, keep_canvases, dispatch.current())
    tape = Tape._make(_recurrence(*flat(Arguments(x, noise, labels, layers, options))))
    trajectory = _trajectory(tape, _shape(noise, layers, *sizes), x is not None) if return_trajectory else None
    kl, latent = (None, None) if x is None else (tape.kl, tape.latent)
    return Recurrence(tape.canvas, kl, trajectory, latent)


#: Where the model keeps each of Layers.
_PATHS = (
    *(f"encoder.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    *("latent.weight", "latent.bias"),
    *(f"decoder.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    *(f"{layer}.{name}" for layer in ("patch", "write_attention", "read_attention") for name in ("weight", "bias")),
    *("initial_canvas", "initial_encoder", "initial_decoder"),
)


def _layers(model: DRAW, infers: bool) -> Layers | None:
    """None where a layer is more than its weights."""
    config, canvas, found = model.config, model.initial_canvas, weights_of(model, model.layer_kinds(infers))
    if found is None:
        return None
    if not infers:
        # Nothing is encoded: the operator is given no layer for it, but numbers of that shape, without memory.
        nothing = canvas.detach().new_zeros(())
        found = [*(nothing.expand(shape) for shape in _shapes(_config_shape(config), True)[:6] if shape is not None), *found]
    writes = found[12:14] if config.write_size is not None else [None, None]
    reads = found[-2:] if infers and config.read_size is not None else [None, None]
    return Layers._make([*found[:12], *writes, *reads, canvas, model.initial_encoder, model.initial_decoder])


def _config_shape(config: DRAWConfig) -> Shape:
    sizes = (config.hidden_size, config.latent_size, config.read_size or 0, config.write_size or 0, config.num_classes or 0)
    return Shape(config.glimpses, 0, *config.image_shape, *sizes)


def _shapes(s: Shape, infers: bool) -> list[tuple[int, ...] | None]:
    """Of each of Layers, in their order; None for one that must not be there."""
    gates, hidden = 4 * s.hidden, s.hidden
    inputs, latents = s.x_numel + sum(s.encoder_columns[:-1]), sum(s.decoder_columns[:-1])
    return [
        *((gates, inputs), (gates, hidden), (gates,), (gates,)),
        *((2 * s.latent, hidden), (2 * s.latent,)),
        *((gates, latents), (gates, hidden), (gates,), (gates,)),
        *((s.patch_numel, hidden), (s.patch_numel,)),
        *(((5, hidden), (5,)) if s.write_size else (None, None)),
        *(((5, hidden), (5,)) if s.read_size and infers else (None, None)),
        *(s.image[1:], (hidden,), (hidden,)),
    ]


def _copy_together(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Each pair's second tensor into its first; on CUDA one launch for all, contiguous and of one dtype on either side."""
    if found := list(pairs):
        torch._foreach_copy_([to for to, _ in found], [source for _, source in found])


def _joined(m: Layers, dtype: torch.dtype) -> Weights:
    """What each product of the loop multiplies with, in the products' dtype; initial states as they are."""

    # (to, from) of all casts: on CUDA one launch does them together, and one by one they took longer than a glimpse.
    copies: list[tuple[Tensor, Tensor]] = []

    def cast(tensor: Tensor) -> Tensor:
        if tensor.dtype == dtype:
            return tensor
        copies.append((torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format), tensor))
        return copies[-1][0]

    def join(*tensors: Tensor | None) -> Tensor:
        there = [tensor for tensor in tensors if tensor is not None]
        if len(there) == 1:
            return cast(there[0]).contiguous()
        rows = [len(tensor) for tensor in there]
        joined = there[0].new_empty(sum(rows), *there[0].shape[1:], dtype=dtype)
        copies.extend(zip(joined.split(rows), there, strict=True))
        return joined

    def added(one: Tensor, other: Tensor) -> Tensor:
        return torch.add(one, other, out=one.new_empty(one.shape, dtype=dtype))

    weights = Weights(
        encoder=(cast(m.encoder_ih), cast(m.encoder_hh)),
        encoder_bias=added(m.encoder_bias_ih, m.encoder_bias_hh),
        latent=(cast(m.latent),),
        latent_bias=join(m.latent_bias),
        decoder=(cast(m.decoder_ih), cast(m.decoder_hh)),
        decoder_bias=added(m.decoder_bias_ih, m.decoder_bias_hh),
        head=(join(m.patch, m.write, m.read),),
        head_bias=join(m.patch_bias, m.write_bias, m.read_bias),
        canvas=m.canvas,
        h_encoder=m.h_encoder,
        h_decoder=m.h_decoder,
    )
    _copy_together(copies)
    return weights


def _apart(grads: WeightGradients, m: Layers) -> list[Tensor]:
    """The gradient of every layer that there is, each in memory of its own."""
    rows = [tensor.shape[0] for tensor in (m.patch, m.write, m.read) if tensor is not None]
    heads = zip(grads.head.split(rows), grads.head_bias.split(rows), strict=True)
    shared = [grads.encoder_bias, grads.decoder_bias, *(tensor for head in heads for tensor in head)]
    own = [torch.empty_like(tensor) for tensor in shared]
    _copy_together(zip(own, shared, strict=True))
    return [
        *grads.encoder,
        grads.encoder_bias,
        own[0],
        grads.latent,
        grads.latent_bias,
        *grads.decoder,
        grads.decoder_bias,
        own[1],
        *own[2:],
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


def _check(x: Tensor | None, noise: Tensor, layers: Layers, options: Options | GradientOptions) -> Shape:
    """Whatever goes to the pieces is what the sizes say, in memory, in one place; gives those sizes."""
    for name, dims in (("canvas", 3), ("h_decoder", 1), ("decoder_ih", 2)):
        if getattr(layers, name).dim() != dims or 0 in getattr(layers, name).shape:
            raise checks.expected(name, f"{dims} dimensions, none of them empty", getattr(layers, name))
    if noise.dim() != 3 or noise.shape[0] < 1 or noise.shape[2] < 1:
        raise checks.expected("noise", "shape [T, B, Z] with T and Z of at least 1", noise)
    dtype, sizes = options.dtype, (options.read_size, options.write_size)
    if dtype not in gate.DTYPES or min(sizes) < 0:
        raise ValueError(f"expected a floating dtype and sizes of at least 0, got {dtype} and {sizes}")
    shape, infers, state = _shape(noise, layers, *sizes), x is not None, (wide_dtype(dtype),)
    if shape.classes < 0:
        raise checks.expected("decoder_ih", f"at least {shape.latent} columns", layers.decoder_ih)
    for name, tensor, wanted in zip(Layers._fields, layers, _shapes(shape, infers), strict=True):
        if tensor is not None and wanted is not None:
            gate.check(name, tensor, noise, wanted, gate.DTYPES)
        elif tensor is not wanted:
            raise checks.expected(name, "None" if wanted is None else f"a tensor of shape {list(wanted)}", tensor)
    gate.check("noise", noise, noise, noise.shape, state)
    if x is not None:
        gate.check("x", x, noise, shape.image, state)
    return shape


def _check_tape(
    tape: Tape, grad_canvas: Tensor, grad_kl: Tensor, noise: Tensor, s: Shape, dtype: torch.dtype, infers: bool
) -> Tape:
    state, keeps = wide_dtype(dtype), tape.canvases.dim() == 5 and len(tape.canvases) == s.glimpses
    tape = gate.kept(tape, glimpses.tape_form(s, state, dtype, True, keeps, infers), noise)
    gate.check("grad_canvas", grad_canvas, noise, s.image, (state,))
    gate.check("grad_kl", grad_kl, noise, tape.kl.shape, (state,))
    return tape


def _classes(labels: Tensor | None, shape: Shape) -> Tensor | None:
    """[B, K], zeros and a one."""
    return None if labels is None else one_hot(labels, shape.classes)


def _forward(*arguments: Any) -> Tape:
    x, noise, labels, layers, options = named(Arguments, arguments)
    shape, infers = _check(x, noise, layers, options), x is not None
    if (labels is None) != (shape.classes == 0):
        raise checks.expected("labels", f"{'None' if labels is not None else 'class numbers'}, for these layers", labels)
    if labels is not None:
        gate.check("labels", labels, noise, (shape.batch,), (torch.int64,))
    checks.check_where_compiled(x, labels, shape.classes)
    pieces = dispatch.pieces(options.backend, noise.device.type)
    tape = _tape(shape, noise, options, infers, pieces.new_buffers)
    if shape.batch:
        x = None if x is None else x.contiguous()
        # In one expression, so that copies of weights do not live on beside what a backend made of them.
        weights = glimpses.prepared(pieces, _joined(layers, options.dtype), shape, infers, False, multiplies_x=infers)
        glimpses.forward(pieces, x, noise.contiguous(), _classes(labels, shape), weights, shape, tape)
    return tape


def _fake(*arguments: Any) -> Tape:
    x, noise, _, layers, options = named(Arguments, arguments)
    shape = _shape(noise, layers, options.read_size, options.write_size)
    return _tape(shape, noise, options, x is not None, plain_buffers)


def _tape(shape: Shape, noise: Tensor, options: Options, infers: bool, new: glimpses.NewBuffers) -> Tape:
    return glimpses.make_tape(shape, noise, options.dtype, options.keep, options.keep_canvases, infers, new)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, noise, labels, layers, ctx.options = named(Arguments, inputs)
    tape = Tape._make(output)
    ctx.mark_non_differentiable(*tape[tape._fields.index("latent") :])
    # Otherwise the engine would make a gradient of zeros for every buffer of the tape: as much memory again.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*flat(Saved(x, noise, labels, layers, tape)))


def _backward(ctx: Any, grad_canvas: Tensor | None, grad_kl: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    # Asked for once: checkpointing recomputes what is saved at every asking.
    saved = named(Saved, ctx.saved_tensors)
    need_x, need_noise, *_ = ctx.needs_input_grad
    o = ctx.options
    given = GradientArguments(
        grad_canvas=torch.zeros_like(saved.tape.canvas) if grad_canvas is None else grad_canvas,
        grad_kl=torch.zeros_like(saved.tape.kl) if grad_kl is None else grad_kl,
        x=saved.x,
        noise=saved.noise,
        layers=saved.layers,
        tape=saved.tape,
        options=GradientOptions(need_x, need_noise, o.read_size, o.write_size, o.dtype, o.backend),
    )
    grads = named(Gradients, _recurrence_backward(*flat(given)))
    layers = Layers._make(None if own is None else grad for own, grad in zip(saved.layers, grads.layers, strict=True))
    x, noise = grads.x if need_x else None, grads.noise if need_noise else None
    return flat(nothing(Arguments)._replace(x=x, noise=noise, layers=layers))


def _gradient(*arguments: Any) -> tuple[Tensor, ...]:
    grad_canvas, grad_kl, x, noise, layers, tape, options = named(GradientArguments, arguments)
    dtype = options.dtype
    shape = _check(x, noise, layers, options)
    tape = _check_tape(tape, grad_canvas, grad_kl, noise, shape, dtype, x is not None)
    if shape.batch == 0:
        return tuple(torch.zeros_like(tensor) for tensor in _gradient_fake(*arguments))
    pieces, x = dispatch.pieces(options.backend, noise.device.type), None if x is None else x.contiguous()
    weights = glimpses.prepared(pieces, _joined(layers, dtype), shape, x is not None, True, multiplies_x=options.need_x)
    wanted = (options.need_x, options.need_noise)
    grads = glimpses_backward.backward(pieces, grad_canvas, grad_kl, x, noise.contiguous(), weights, shape, tape, *wanted)
    apart = iter(_apart(grads.weights, layers))
    return flat(
        Gradients(
            noise.new_empty(0) if grads.x is None else grads.x,
            noise.new_empty(0) if grads.noise is None else grads.noise,
            Layers._make(noise.new_empty(0) if own is None else next(apart).to(own.dtype) for own in layers),
        )
    )


def _gradient_fake(*arguments: Any) -> tuple[Tensor, ...]:
    _, _, x, noise, layers, _, options = named(GradientArguments, arguments)
    return flat(
        Gradients(
            noise.new_empty(x.shape if x is not None and options.need_x else 0),
            noise.new_empty(noise.shape if options.need_noise else 0),
            Layers._make(noise.new_empty(0) if own is None else own.new_empty(own.shape) for own in layers),
        )
    )


_recurrence_backward = registry.register(
    f"recurrence_backward({schema(GradientArguments, tape='tape_')}) -> ({tensors(Gradients)})",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("DRAW"),
)
_recurrence = registry.register(
    f"recurrence({schema(Arguments)}) -> ({tensors(Tape)})",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
    folds=((0, 1, 0), (0, *(1 for _ in Tape._fields[1:]))),
)
