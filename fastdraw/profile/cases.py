"""What is profiled: an operator at a shape, its least cost, and every way to compute it that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import fastdraw
from fastdraw import dispatch, reference
from fastdraw.profile import cost, jax_draw, peers, windows
from fastdraw.profile.cost import Cost
from fastdraw.profile.gradients import Function, Inputs, differentiate, leaves
from fastdraw.profile.shapes import Drawing, Glimpses, Shape, Step
from fastdraw.profile.timing import Variant

#: What --peers may name, those that are measured unless something else is said first. The others compile for long.
STANDARD_PEERS = ("plain", "einsum", "grid_sample", "LSTMCell")
PEERS = (*STANDARD_PEERS, "compile", "jax")
#: More sets of inputs than this are not made, however large a GPU's L2 is.
MOST_SETS = 64
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Entry(NamedTuple):
    """A way to compute a case. approximate: why its results are others, empty where they are the same to rounding.

    calls, memory: whether torch's profiler sees its launches, and its memory.
    """

    variant: Variant
    approximate: str = ""
    calls: bool = True
    memory: bool = True


@dataclass(frozen=True)
class Case:
    operator: str
    shape: Shape
    dtype: str
    device: str
    backend: str
    peers: Collection[str]

    @property
    def title(self) -> str:
        return f"{self.operator} {self.shape.text}"

    @property
    def measured(self) -> str:
        if isinstance(self.shape, Drawing):
            return "forward and backward of a training step, gradients to all weights"
        if isinstance(self.shape, Step):
            return "forward and backward, gradients to x, h, c and all weights"
        first = "image" if self.operator == "read" else "patch"
        return f"forward and backward, gradient{f's to {first} and' if self.shape.image_gradient else ' to'} params"

    @property
    def glimpses(self) -> int:
        """Steps in a row, each of which depends on the one before."""
        return self.shape.config.glimpses if isinstance(self.shape, Drawing) else 1

    @property
    def cost(self) -> Cost:
        """The least bytes and operations: of the pixels that windows see for read and write alone."""
        s, e = self.shape, DTYPES[self.dtype].itemsize
        if isinstance(s, Step):
            return cost.lstm_step(s.batch, s.inputs, s.hidden, e)
        if isinstance(s, Drawing):
            model = reference.DRAW.from_config(s.config)
            weights = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
            c = s.config
            assert c.read_size is not None
            assert c.write_size is not None
            return cost.draw(s.batch, c.glimpses, c.image_shape, c.latent_size, c.read_size, c.write_size, weights, 4)
        least = cost.read_support if self.operator == "read" else cost.write_support
        pixels = s.height * s.width if s.image_gradient else 0
        return least(s.batch, s.channels, s.windows, s.size, windows.support(s), e, pixels)

    def entries(self) -> tuple[list[Entry], int]:
        """fastdraw first, then the peers; and how many sets of inputs each takes in turn."""
        if isinstance(self.shape, Drawing):
            return _drawing(self, self.shape), 1
        return _step(self, self.shape) if isinstance(self.shape, Step) else _glimpse(self, self.shape)


def _own_name(case: Case) -> str:
    """fastdraw, and which of its backends that is here."""
    name = case.backend
    if name == "auto":
        fastest = "triton" if case.device == "cuda" else "native"
        name = fastest if dispatch.backends()[fastest] is None else "aten"
    return f"fastdraw {name}"


def _glimpse(case: Case, s: Glimpses) -> tuple[list[Entry], int]:
    size, image_size = s.size, (s.height, s.width)
    params = windows.params(s)
    several = (s.windows,) if s.windows > 1 else ()
    own: Function
    plain: Function
    if case.operator == "read":
        first = torch.rand(s.batch, s.channels, *image_size, device=case.device)
        own, plain = (partial(_read, module.read, size) for module in (fastdraw, reference))
        einsum, shape = peers.einsum_read(size), (s.batch, *several, s.channels, size, size)
    else:
        first = torch.randn(s.batch, *several, s.channels, size, size, device=case.device)
        own, plain = (partial(_write, module.write, image_size) for module in (fastdraw, reference))
        einsum, shape = peers.einsum_write(image_size), (s.batch, s.channels, *image_size)
    dtype = DTYPES[case.dtype]
    constants = () if s.image_gradient else (0,)
    # Made where they are wanted: some have hundreds of millions of numbers.
    weight = torch.randn(shape, device=case.device).to(dtype)
    inputs = Problem(case, [first, params], [dtype, torch.float32], [weight], constants)
    functions: dict[str, Function] = {"plain: two products": plain} if "plain" in case.peers else {}
    functions |= {"einsum": einsum} if "einsum" in case.peers else {}
    entries = inputs.entries(own, functions)
    if case.operator == "read" and "grid_sample" in case.peers:
        stride = s.window * (max(image_size) - 1) / max(size - 1, 1)
        points = peers.grid_sample_read(size, stride)
        entries.append(Entry(inputs.variant("~ grid_sample", points), "a mean of bilinear samples, without sigma"))
    if "compile" in case.peers:
        entries.append(inputs.compiled(plain))
    if "jax" in case.peers:
        entries.append(inputs.jax(peers.JaxGlimpse(case.operator, size, image_size)))
    return entries, len(inputs.inputs)


def _read(read: Callable[..., Tensor], size: int, image: Tensor, params: Tensor) -> Tensor:
    return read(image, params, size)


def _write(write: Callable[..., Tensor], image_size: tuple[int, int], patch: Tensor, params: Tensor) -> Tensor:
    return write(patch, params, image_size)


def _step(case: Case, s: Step) -> tuple[list[Entry], int]:
    states = [torch.randn(s.batch, size) for size in (s.inputs, s.hidden, s.hidden)]
    shapes = [(4 * s.hidden, s.inputs), (4 * s.hidden, s.hidden), (4 * s.hidden,), (4 * s.hidden,)]
    bound = 1 / math.sqrt(s.hidden)
    weights = [torch.empty(shape).uniform_(-bound, bound) for shape in shapes]
    dtype = DTYPES[case.dtype]
    dtypes = [torch.float32 if index == 2 else dtype for index in range(7)]
    inputs = Problem(case, [*states, *weights], dtypes, [torch.randn(s.batch, s.hidden) for _ in range(2)])

    def plain(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        return reference.lstm_step(x, (h, c), *weights)

    functions: dict[str, Function] = {"nn.LSTMCell": peers.lstm_cell} if "LSTMCell" in case.peers else {}
    functions |= {"plain PyTorch": plain} if "plain" in case.peers else {}
    entries = inputs.entries(lambda x, h, c, *rest: fastdraw.lstm_step(x, (h, c), *rest), functions)
    if "compile" in case.peers:
        entries.append(inputs.compiled(plain))
    return entries, len(inputs.inputs)


def _drawing(case: Case, s: Drawing) -> list[Entry]:
    state = reference.DRAW.from_config(s.config).state_dict()
    x = torch.rand(s.batch, *s.config.image_shape, device=case.device)
    noise = torch.randn(s.config.glimpses, s.batch, s.config.latent_size, device=case.device)

    def variant(name: str, kind: type[reference.DRAW], backend: str | None = None) -> Variant:
        model = kind.from_config(s.config)
        model.load_state_dict(state)
        weights = list(model.to(case.device).parameters())

        def step(_: int) -> list[Tensor]:
            with torch.autocast(case.device, DTYPES[case.dtype], enabled=case.dtype != "float32"):
                out = model(x, noise)
            return [out.canvas.detach(), *torch.autograd.grad(out.loss, weights)]

        return Variant(name, step, backend)

    entries = [Entry(variant(_own_name(case), fastdraw.DRAW, case.backend))]
    if "plain" in case.peers:
        entries.append(Entry(variant("plain PyTorch", reference.DRAW)))
    if "jax" in case.peers and case.dtype == "float32":
        compiled: list[Callable[[], list[Tensor]]] = []

        def jax_step(_: int) -> list[Tensor]:
            if not compiled:
                compiled.append(jax_draw.training_step(s.config, state, x, noise))
            # Its loss, not its canvas, comes first.
            return compiled[0]()

        entries.append(Entry(Variant("jax.jit of lax.scan", jax_step, captured=False), calls=False, memory=False))
    return entries


class Problem:
    """Inputs of an operator that all variants share, in several sets on a GPU, so that none is found in L2."""

    def __init__(
        self,
        case: Case,
        tensors: list[Tensor],
        dtypes: list[torch.dtype],
        weights: list[Tensor],
        constants: Collection[int] = (),
    ) -> None:
        self.case = case
        tensors, weights = ([tensor.to(case.device) for tensor in each] for each in (tensors, weights))
        sets = 1
        if case.device == "cuda":
            nbytes = sum(tensor.nbytes for tensor in (*tensors, *weights))
            sets = min(MOST_SETS, math.ceil(2 * torch.cuda.get_device_properties(0).L2_cache_size / nbytes))
        self.inputs: list[Inputs] = [leaves(tensors, dtypes, list(constants)) for _ in range(sets)]
        self.weights = [[weight.clone() for weight in weights] for _ in range(sets)]

    def variant(self, name: str, function: Function, backend: str | None = None) -> Variant:
        return Variant(name, lambda k: differentiate(function, self.inputs[k], self.weights[k]), backend)

    def entries(self, own: Function, others: dict[str, Function]) -> list[Entry]:
        first = Entry(self.variant(_own_name(self.case), own, self.case.backend))
        return [first, *(Entry(self.variant(name, function)) for name, function in others.items())]

    def compiled(self, plain: Function) -> Entry:
        # What its C++ does on a CPU is no operator of torch's.
        on_cpu = self.case.device == "cpu"
        return Entry(self.variant("torch.compile of it", torch.compile(plain, dynamic=False)), calls=not on_cpu)

    def jax(self, glimpse: peers.JaxGlimpse) -> Entry:
        def step(k: int) -> list[Tensor]:
            return glimpse.step(self.inputs[k], self.weights[k])

        return Entry(Variant("jax.jit", step, captured=False), calls=False, memory=False)
