"""What is measured: a case's inputs, every way to compute it that was asked for, the exact results, and the least cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

import fastdraw
from fastdraw import dispatch, reference
from fastdraw.products import float32_products
from fastdraw.profile import peers
from fastdraw.profile.cost import Cost
from fastdraw.profile.models import Problem
from fastdraw.profile.peers import Peer
from fastdraw.profile.shapes import Drawing, Glimpses, Shape, Step
from fastdraw.profile.timing import Timed, Variant
from fastdraw.testing import Function, Inputs, as_list, differentiate, leaves

#: What --peers may name, those that are measured unless something else is said first. The others compile for long.
STANDARD_PEERS = ("reference", "einsum", "grid_sample", "LSTMCell")
PEERS = (*STANDARD_PEERS, "compile", "jax")
#: More sets of inputs than this are not made, however large L2 is: a graph holds a few dozen kernels for each.
MOST_SETS = 256
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Case:
    """variants: the first is fastdraw as it comes. exact: outputs and gradients in float64.

    Results are proven against `exact` where a variant called "reference" is among the rest, which `fastdraw profile` may leave
    out.
    """

    title: str
    measured: str
    #: A key of DTYPES: of images, patches and products.
    precision: str
    device: str
    cost: Cost
    variants: list[Variant]
    exact: Callable[[], list[Tensor]]
    #: Sets of inputs that calls take in turn, so that none is found in a GPU's L2.
    sets: int = 1
    input_bytes: int = 0
    #: Results, besides the variant called "reference", that arithmetic of this dtype cannot be told from exact ones: the
    #: budget is that of the worst of them.
    rivals: Callable[[torch.dtype], list[list[Tensor]]] = lambda _: []
    #: Of a model: what turns a time into images per second and microseconds per glimpse.
    batch: int | None = None
    glimpses: int | None = None
    #: The same at a size that float64 can be computed at: it is proven in this case's place.
    twin: Case | None = None
    #: Of a model: operations in its matrix products alone.
    product_operations: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]


class _Sets:
    """Sets of the same inputs, and of the weights that make one number of the outputs, for calls to take in turn: on a CUDA
    device as many as are larger than L2 twice."""

    def __init__(
        self,
        make: Callable[[], list[Tensor]],
        own: Function,
        dtype: torch.dtype,
        device: str,
        wide: Collection[int],
        constants: Collection[int],
    ) -> None:
        torch.manual_seed(0)
        made = [tensor.to(device) for tensor in make()]
        dtypes = [torch.float32 if index in wide else dtype for index in range(len(made))]
        self._constants, self.inputs = constants, [leaves(made, dtypes, constants)]
        del made
        with torch.no_grad():
            # Gradients come in the dtype of what they belong to.
            self.weights = [[torch.randn_like(output) for output in as_list(own(*self.inputs[0]))]]
        self.input_bytes = sum(tensor.nbytes for tensor in (*self.inputs[0], *self.weights[0]))
        if device == "cuda":
            count = math.ceil(2 * torch.cuda.get_device_properties(0).L2_cache_size / self.input_bytes)
            for _ in range(min(MOST_SETS, count) - 1):
                self.inputs.append(self.copy(dtypes))
                self.weights.append([t.clone() for t in self.weights[0]])

    def copy(self, dtypes: Sequence[torch.dtype], number: int = 0) -> Inputs:
        return leaves(self.inputs[number], dtypes, self._constants)

    def all_in(self, dtype: torch.dtype) -> tuple[list[Inputs], list[list[Tensor]]]:
        inputs = [self.copy([dtype] * len(each), k) for k, each in enumerate(self.inputs)]
        return inputs, [[t.to(dtype) for t in each] for each in self.weights]


def operator_case(
    title: str,
    measured: str,
    cost: Callable[[int], Cost],
    own: Function,
    plain: Function,
    others: Sequence[Peer],
    make: Callable[[], list[Tensor]],
    precision: str,
    device: str,
    backends: Sequence[str],
    wide: Collection[int] = (),
    constants: Collection[int] = (),
    batch: int | None = None,
) -> Case:
    """A case of one operator, `plain` its specification. cost: of the bytes of an element. make() gives the inputs; those
    numbered in `wide` are never narrower than float32, and those in `constants` get no gradient."""
    dtype = DTYPES[precision]
    sets = _Sets(make, own, dtype, device, wide, constants)
    setting = partial(float32_products, "high" if precision == "tf32" else "highest")

    def variant(name: str, function: Function, backend: str) -> Variant:
        return Variant(name, lambda k: differentiate(function, sets.inputs[k], sets.weights[k]), backend, setting)

    def of(peer: Peer) -> Variant:
        inputs, weights = sets.all_in(dtype) if peer.narrow else (sets.inputs, sets.weights)
        step = peer.function if peer.differentiates else partial(differentiate, peer.function)
        return Variant(
            peer.name,
            lambda k: step(inputs[k], weights[k]),
            setting=setting,
            captured=not peer.differentiates,
            approximate=peer.approximate,
            calls_seen=peer.calls_seen and not peer.differentiates,
            memory_seen=not peer.differentiates,
        )

    def exact() -> list[Tensor]:
        # From the very numbers that the variants get.
        return differentiate(
            plain, sets.copy([torch.float64] * len(sets.inputs[0])), [weight.double() for weight in sets.weights[0]]
        )

    variants = [*(variant(f"fastdraw {name}", own, name) for name in backends), *map(of, others)]
    least = cost(dtype.itemsize)
    count = len(sets.inputs)
    return Case(title, measured, precision, device, least, variants, exact, count, sets.input_bytes, batch=batch)


def resolved(backend: str, device: str) -> str:
    """The name of the backend that "auto" means on this device."""
    if backend != "auto":
        return backend
    fastest = "triton" if device == "cuda" else "native"
    return fastest if dispatch.backends()[fastest] is None else "aten"


def case(shape: Shape, precision: str, device: str, backends: Sequence[str], names: Collection[str]) -> Case:
    """The shape's case: fastdraw by each of `backends`, and the peers that `names` asks for, as far as the operator has them.

    Images, patches and noise are random, the same each time."""
    if isinstance(shape, Drawing):
        return _drawing(shape, precision, device, backends, names)
    return (_step if isinstance(shape, Step) else glimpse_case)(shape, precision, device, backends, names)  # type: ignore[arg-type]


def glimpse_function(module: ModuleType, operator: str, size: int, image_size: tuple[int, int]) -> Function:
    """read or write of fastdraw or of its reference: a function of (image, params), or of (patch, params)."""
    if operator == "read":
        return lambda image, params: module.read(image, params, size)
    return lambda patch, params: module.write(patch, params, image_size)


def glimpse_case(
    s: Glimpses,
    precision: str,
    device: str,
    backends: Sequence[str],
    names: Collection[str],
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Case:
    size, image_size = s.size, (s.height, s.width)
    own, plain = (glimpse_function(module, s.operator, size, image_size) for module in (fastdraw, reference))
    dense = peers.einsum_read(size) if s.operator == "read" else peers.einsum_write(image_size)
    others = [Peer("reference", plain)] if "reference" in names else []
    others += [Peer("einsum", dense)] if "einsum" in names else []
    if s.operator == "read" and "grid_sample" in names:
        points = peers.grid_sample_read(size, s.stride)
        others.append(Peer("~ grid_sample", points, approximate="a mean of bilinear samples, without sigma"))
    others += [compiled(plain, device)] if "compile" in names else []
    if "jax" in names:
        others.append(Peer("jax.jit", peers.JaxGlimpse(s.operator, size, image_size), differentiates=True))

    def make() -> list[Tensor]:
        if s.operator == "read":
            image = torch.rand(s.batch, s.channels, *image_size, device=device)
            return [image.to(memory_format=memory_format), s.params()]
        several = (s.windows,) if s.windows > 1 else ()
        return [torch.randn(s.batch, *several, s.channels, size, size, device=device), s.params()]

    return operator_case(
        f"{s.operator} {s.text}",
        s.measured,
        s.cost,
        own,
        plain,
        others,
        make,
        precision,
        device,
        backends,
        wide=[1],
        constants=() if s.image_gradient else [0],
        batch=s.batch,
    )


def _step(s: Step, precision: str, device: str, backends: Sequence[str], names: Collection[str]) -> Case:
    def plain(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        return reference.lstm_step(x, (h, c), *weights)

    def make() -> list[Tensor]:
        bound = 1 / math.sqrt(s.hidden)
        shapes = [(4 * s.hidden, s.inputs), (4 * s.hidden, s.hidden), (4 * s.hidden,), (4 * s.hidden,)]
        states = [torch.randn(s.batch, size) for size in (s.inputs, s.hidden, s.hidden)]
        return [*states, *(torch.empty(shape).uniform_(-bound, bound) for shape in shapes)]

    others = [Peer("nn.LSTMCell", peers.lstm_cell, narrow=True)] if "LSTMCell" in names else []
    others += [Peer("reference", plain)] if "reference" in names else []
    others += [compiled(plain, device)] if "compile" in names else []

    def own(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        return fastdraw.lstm_step(x, (h, c), *weights)

    return operator_case(f"lstm {s.text}", s.measured, s.cost, own, plain, others, make, precision, device, backends, wide=[2])


def compiled(plain: Function, device: str) -> Peer:
    # What its C++ does on a CPU is no operator of torch's.
    return Peer("torch.compile", torch.compile(plain, dynamic=False), calls_seen=device != "cpu")


def _drawing(s: Drawing, precision: str, device: str, backends: Sequence[str], names: Collection[str]) -> Case:
    problem = Problem(s.config, s.batch, device)
    dtype = DTYPES[precision]
    autocast = None if dtype == torch.float32 else dtype

    def variant(name: str, kind: type[reference.DRAW], backend: str | None = None) -> Variant:
        step = problem.step(kind.from_config(s.config), autocast)
        return Variant(name, lambda _: step(), backend)

    variants = [variant(f"fastdraw {name}", fastdraw.DRAW, name) for name in backends]
    variants += [variant("reference", reference.DRAW)] if "reference" in names else []
    if "jax" in names and autocast is None:
        variants.append(jax_variant(problem))
    return training_case(problem, f"draw {s.text}", s.cost(4), variants, precision)


def jax_variant(problem: Problem) -> Variant:
    """Its results are on JAX's device, and come in the order of the reference's."""
    step = Timed(problem.jax_step)
    return Variant("jax.jit of lax.scan", step, dtype=torch.float32, captured=False, calls_seen=False, memory_seen=False)


def training_case(problem: Problem, title: str, least: Cost, variants: list[Variant], precision: str = "float32") -> Case:
    """A training step without the optimiser, which is the same for all."""
    return Case(
        title,
        Drawing.measured,
        precision,
        problem.device,
        least,
        variants,
        problem.exact,
        input_bytes=problem.x.nbytes + problem.noise.nbytes,
        rivals=problem.rivals,
        batch=problem.batch,
        glimpses=problem.config.glimpses,
    )
