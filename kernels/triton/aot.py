"""Every kernel, compiled ahead of time for devices that need not be there, and what it takes of them.

`cases` lists launches by kernel, shape class and dtype. They come from the launchers themselves, with tensors on the meta
device, so what is compiled here is what runs there: signatures, constexprs, block sizes, warps and stages.

Not for a process with TRITON_INTERPRET=1: there kernels are no code to compile.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .launch import TL_DTYPES, Launch

#: Shared memory that one block may have, bytes.
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Resources(NamedTuple):
    """registers per thread; shared memory per block and stack (where spilled registers go) per thread, bytes."""

    registers: int
    shared: int
    spills: int


def compile_launch(launch: Launch, target: str) -> Resources:
    """Compiles what `launch` would run for one of TARGETS; raises whatever the compiler raises."""
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    compiled = triton.compile(_source(launch), target=TARGETS[target], options=options)
    if target.startswith("sm_"):
        registers, spills = _cuda_usage(compiled.asm["cubin"])
    else:
        text = compiled.asm["amdgcn"]
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        spills = _number(r"\.vgpr_spill_count:\s+(\d+)", text) + _number(r"\.sgpr_spill_count:\s+(\d+)", text)
    return Resources(registers, compiled.metadata.shared, spills)


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
            divisible = True
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
