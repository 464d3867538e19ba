"""Every kernel, compiled ahead of time for devices that need not be there, and what it takes of them.

`cases` lists launches by kernel, shape class and dtype. They come from the launchers themselves, with tensors on the meta
device, so what is compiled here is what runs there: signatures, constexprs, block sizes, warps and stages.

Not for a process with TRITON_INTERPRET=1: there kernels are no code to compile.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastdraw.ops.contract import wide_dtype

from . import guards
from .aot_pieces import piece_cases
from .filterbank import filterbank_grad_launch, filterbank_launch
from .launch import TL_DTYPES, Launch, dependence
from .lstm import lstm_backward_launch, lstm_launch, lstm_pointwise_launch
from .read import read_launch
from .tables import WRITE_GRAD_SIZE, patch_tiles, window_parts
from .window_grad import window_grad_launch
from .write import write_launch

#: Shared memory that one block may have, bytes.
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
#: Of a multiprocessor, and so of one block at most.
REGISTERS = 2**16
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


#: (B, K, C, H, W, N) by name: what each shape class stands for. One case is compiled for each row of the tables and each path.
GLIMPSES = {
    "one pixel": (1, 1, 1, 1, 1, 1),
    "mnist read": (128, 1, 1, 28, 28, 2),
    "mnist write": (128, 1, 1, 28, 28, 5),
    "mnist 12": (128, 1, 1, 28, 28, 12),
    "svhn": (64, 1, 3, 54, 54, 12),
    "wide patch": (8, 1, 1, 100, 90, 32),
    "widest patch": (8, 1, 3, 100, 90, 64),
    "large image": (1, 1, 3, 4096, 4096, 64),
    "large image 5": (8, 1, 1, 1024, 1024, 5),
    "large image 12": (4, 1, 1, 4096, 4096, 12),
    "several windows": (128, 4, 1, 28, 28, 5),
    "several windows of a large image": (2, 8, 3, 1024, 1024, 12),
    "more filters": (8, 1, 3, 100, 90, 65),
    "most filters": (8, 2, 3, 4096, 4096, 128),
}
#: By kind of arithmetic: the image's dtype, the products' precision, and the shapes that are compiled.
GLIMPSE_CASES = {
    "float32": (
        torch.float32,
        "ieee",
        (
            *("one pixel", "mnist read", "mnist write", "svhn", "wide patch", "widest patch", "large image"),
            *("several windows", "several windows of a large image", "more filters", "most filters"),
        ),
    ),
    "tf32": (torch.float32, "tf32", ("svhn", "wide patch", "large image 12", "several windows", "most filters")),
    "bfloat16": (torch.bfloat16, "tf32", ("mnist write", "widest patch", "large image", "most filters")),
    "float16": (torch.float16, "tf32", ("mnist 12", "several windows of a large image")),
    "float64": (torch.float64, "ieee", ("mnist write", "svhn", "large image 5", "several windows", "more filters")),
}
#: (B, I, H) of the LSTM step: the paper's MNIST encoder, and one whose sides are no multiples of 16.
LSTMS = {"mnist": (128, 264, 256), "odd": (1000, 77, 130)}


class Resources(NamedTuple):
    """registers per thread; shared memory per block and stack (where spilled registers go) per thread, bytes; faults: what
    guards.py found, as sentences."""

    registers: int
    shared: int
    spills: int
    faults: list[str]


def cases(target: str) -> Iterator[tuple[str, Launch]]:
    """(name, launch) for every kernel, shape class and dtype that `target` is compiled for."""
    for kind, (dtype, precision, shapes) in GLIMPSE_CASES.items():
        if target == "gfx942":
            if kind == "tf32":
                continue
            precision = "ieee"
        for shape in shapes:
            for name, launch in glimpse_launches(GLIMPSES[shape], dtype, precision):
                yield f"{name}, {kind}, {shape}", launch
    for dtype in (torch.float32, torch.float64):
        params, y, x, gamma = (_meta(dtype, *shape) for shape in ((8, 5), (8, 12, 54), (8, 12, 300), (8,)))
        yield f"filterbank, {dtype}", filterbank_launch(params, y, x, gamma)
        yield f"filterbank_grad, {dtype}", filterbank_grad_launch(y, x, gamma, params, params)
    for shape, dtype in (("mnist", torch.float32), ("mnist", torch.bfloat16), ("odd", torch.float32), ("odd", torch.float16)):
        for name, launch in lstm_launches(LSTMS[shape], dtype, pointwise=shape == "mnist"):
            yield f"{name}, {dtype}, {shape}", launch
    for name, launch in lstm_launches(LSTMS["odd"], torch.float64, pointwise=True):
        yield f"{name}, float64", launch
    yield from piece_cases(target)


def glimpse_launches(shape: tuple[int, ...], dtype: torch.dtype, precision: str) -> Iterator[tuple[str, Launch]]:
    batch, windows, channels, height, width, size = shape
    image = _meta(dtype, batch, channels, height, width)
    patch, params = _meta(dtype, batch, windows, channels, size, size), _meta(torch.float32, batch, windows, 5)
    wide = wide_dtype(image.dtype)

    def outputs(name: str) -> tuple[Tensor, Tensor, int]:
        """What of a patch, and of its params' gradient, the programs that share an image make; how many those are."""
        tiles = patch_tiles(name, size, wide, precision)
        parts = window_parts(batch * windows * channels * tiles, height * width)
        patches = patch if parts == 1 else _meta(wide, parts, *patch.shape)
        programs = tiles * (1 if parts == 1 else channels)
        return patches, _meta(wide, parts, batch, windows, programs, 5), parts

    patches, _, parts = outputs("read")
    yield "read", read_launch(image, params, patches, 1, precision, parts)
    # Several windows, and several tiles of one, are summed in a wide dtype.
    summed = windows > 1 or patch_tiles("write", size, wide, precision) > 1
    drawn = _meta(wide if summed else dtype, batch, channels, height, width)
    yield "write", write_launch(patch, params, drawn, -1, precision)
    _, grad_params, parts = outputs("window_grad")
    yield "window_grad", window_grad_launch(patch, image, params, grad_params, None, 1, precision, parts)
    if size <= WRITE_GRAD_SIZE[wide]:
        patches, grad_params, parts = outputs("write_grad")
        yield "write_grad", window_grad_launch(patch, image, params, grad_params, patches, -1, precision, parts)


def lstm_launches(sizes: tuple[int, int, int], dtype: torch.dtype, pointwise: bool) -> Iterator[tuple[str, Launch]]:
    batch, inputs, hidden = sizes
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    x, h, c = _meta(dtype, batch, inputs), _meta(dtype, batch, hidden), _meta(state_dtype, batch, hidden)
    gates, bias = _meta(state_dtype, batch, 4 * hidden), _meta(dtype, 4 * hidden)
    weights = (_meta(dtype, 4 * hidden, inputs), _meta(dtype, 4 * hidden, hidden), bias, bias)
    for precision in ("ieee", "tf32") if dtype == torch.float32 else ("ieee",):
        fused = lstm_launch(x, h, c, weights, (h, c, gates), precision)
        if fused is not None:
            yield f"lstm {precision}", fused
    if pointwise:
        yield "lstm_pointwise", lstm_pointwise_launch(gates, gates, c, (bias, bias), (h, c, gates))
        yield "lstm_backward", lstm_backward_launch(h, c, gates, c, c, _meta(dtype, batch, 4 * hidden), c)


def _meta(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def compile_launch(launch: Launch, target: str) -> Resources:
    """Compiles what `launch` would run for one of TARGETS; raises whatever the compiler raises."""
    extra = dependence(launch, target in ("sm_90", "sm_100"))
    launch = launch._replace(arguments={**launch.arguments, **{name: extra[name] for name in extra if name.isupper()}})
    options = {**launch.options(nvidia=target.startswith("sm_")), **{n: extra[n] for n in extra if not n.isupper()}}
    compiled = triton.compile(_source(launch), target=TARGETS[target], options=options)
    if target.startswith("sm_"):
        registers, spills = _cuda_usage(compiled.asm["cubin"])
        # ptxas takes as many registers a thread as it is told to, of more threads than a multiprocessor has them for.
        whole = -(-registers // 8) * 8 * 32 * launch.num_warps
    else:
        text = compiled.asm["amdgcn"]
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        # Spilled scalar registers go to lanes of vector registers, not to memory.
        spills = _number(r"\.vgpr_spill_count:\s+(\d+)", text) + _number(r"\.private_segment_fixed_size:\s+(\d+)", text)
        whole = 0
    faults = guards.faults(compiled.asm, launch.arguments.get("PRECISION"))
    if whole > REGISTERS:
        faults.append(f"{launch.num_warps} warps of {registers} registers a thread, which no multiprocessor has")
    if "launch_pdl" in extra and not guards.waits_first(compiled.asm["ptx"]):
        faults.append("touches memory, or branches, before it waits for the kernel before")
    return Resources(registers, compiled.metadata.shared, spills, faults)


def _source(launch: Launch) -> Any:
    """What Triton's just-in-time compiler makes of the arguments: 1 is a constant, multiples of 16 are known to be such."""
    kernel = launch.kernel
    left_alone = {kernel.arg_names[i] if isinstance(i, int) else i for i in kernel.do_not_specialize or ()}
    signature, constants, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = launch.arguments[name]
        divisible = False
        if isinstance(value, Tensor):
            signature[name] = f"*{TL_DTYPES[value.dtype]}"
            divisible = value.storage_offset() * value.element_size() % 16 == 0
        elif name.isupper() or (value == 1 and name not in left_alone):
            signature[name] = "constexpr"
            constants[name] = value
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
            divisible = value % 16 == 0 and name not in left_alone
        if divisible:
            attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def _cuda_usage(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return _number(r"REG:(\d+)", text), _number(r"STACK:(\d+)", text) + _number(r"LOCAL:(\d+)", text)


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern} in what the compiler's tools print")
    return int(match[1])
