"""Small kernels in PTX for the emulator's own tests: one instruction on given bits, and bodies written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from emulator import machine, memory, parser

HEAD = """
.version 8.7
.target {target}
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry written_kernel(
{parameters}
)
.reqntid {threads}
{{
{declarations}
{body}
	ret;
}}
"""
DECLARATIONS = "\t.reg .pred %p<40>;\n\t.reg .b16 %rs<80>;\n\t.reg .b32 %r<300>;\n\t.reg .b64 %rd<80>;"


def kernel(body: str, parameters: int, threads: int = 32, target: str = "sm_90a") -> parser.Kernel:
    """parameters: pointers, of which %rd1, %rd2, ... hold the addresses; %r1 holds the thread's number, %r2 the program's."""
    lines = [f"\t.param .u64 .ptr .global .align 1 p{i}" for i in range(parameters)]
    begin = [f"\tld.param.b64 %rd{i + 1}, [p{i}];" for i in range(parameters)]
    begin += ["\tmov.u32 %r1, %tid.x;", "\tmov.u32 %r2, %ctaid.x;"]
    whole = "\n".join(begin) + "\n" + body
    return parser.Kernel(
        HEAD.format(target=target, parameters=",\n".join(lines), threads=threads, declarations=DECLARATIONS, body=whole)
    )


def launch(
    one: parser.Kernel, tensors: list[torch.Tensor], programs: int = 1, shared: int = 1024, order: str = "together"
) -> machine.Machine:
    storages: dict[int, memory.Storage] = {}
    arguments = []
    for i, tensor in enumerate(tensors):
        untyped = tensor.untyped_storage()
        storage = storages.setdefault(untyped.data_ptr(), memory.Storage(untyped.data_ptr(), untyped.nbytes()))
        arguments.append(memory.Argument(i, f"p{i}", tensor, storage))
    assert one.threads is not None
    values = [argument.address for argument in arguments]
    grid = (programs, 1, 1)
    return machine.Machine(machine.Program(one), values, arguments, grid, one.threads // 32, shared, machine.ORDERS[order])


#: Register prefix, and the width of loads, by bytes.
_BANK = {1: "%p", 2: "%rs", 4: "%r", 8: "%rd"}


def apply(opcode: str, operands: list[np.ndarray], result: Any, tail: str = "", order: tuple[int, ...] = ()) -> np.ndarray:
    """What `opcode` gives for each row of the operands, arrays of n values. result: its dtype; tail: immediates behind the
    operands. Predicates go in and out as 0 and 1."""
    count = len(operands[0])
    padded = -(-count // 32) * 32
    body, names = [], []
    tensors = []
    for i, values in enumerate(operands):
        held = values.astype(np.uint32) if values.dtype == np.bool_ else values
        whole = np.zeros(padded, held.dtype)
        whole[:count] = held
        tensors.append(torch.from_numpy(whole.view(f"i{held.dtype.itemsize}").copy()))
        size = held.dtype.itemsize
        register = f"{_BANK[size]}{20 + i}"
        body.append(f"\tmad.wide.u32 %rd{40 + i}, %r3, {size}, %rd{i + 1};")
        body.append(f"\tld.global.b{8 * size} {register}, [%rd{40 + i}];")
        if values.dtype == np.bool_:
            body.append(f"\tsetp.ne.b32 %p{20 + i}, {register}, 0;")
            register = f"%p{20 + i}"
        names.append(register)
    dtype = np.dtype(result)
    size = 4 if dtype == np.bool_ else dtype.itemsize
    out = torch.zeros(padded, dtype={2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
    target = "%p30" if dtype == np.bool_ else f"{_BANK[size]}30"
    body.append(f"\t{opcode} {target}, {', '.join(names)}{tail};")
    if dtype == np.bool_:
        body.append("\tselp.b32 %r30, 1, 0, %p30;")
    body.append(f"\tmad.wide.u32 %rd50, %r3, {size}, %rd{len(operands) + 1};")
    body.append(f"\tst.global.b{8 * size} [%rd50], {_BANK[size]}30;")
    body.insert(0, "\tmad.lo.s32 %r3, %r2, 32, %r1;")
    launch(kernel("\n".join(body), len(operands) + 1), [*tensors, out], programs=padded // 32)
    bits = out.numpy()[:count]
    return bits.astype(bool) if dtype == np.bool_ else bits.view(dtype)
