"""Positive controls: a kernel of this project with one barrier, wait, fence or mask taken out is found out, each in turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from operators import moderate_params

pytest.importorskip("triton", reason="the emulator is for what triton compiles")

from fastdraw import env

if env.triton_interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton

from emulator import device, faults, machine, parser
from fastdraw.kernels.triton import aot
from fastdraw.kernels.triton.canvas_backward import canvas_backward_launch
from fastdraw.kernels.triton.cell import cell_launch
from fastdraw.kernels.triton.linear import linear_launch
from fastdraw.kernels.triton.read import read_launch
from fastdraw.kernels.triton.write import write_launch
from fastdraw.ops.glimpses import Shape


class Compiled:
    """A launch, compiled for sm_90 and run on CPU tensors by the emulator alone."""

    def __init__(self, one: Any, results: tuple[str, ...]) -> None:
        self.launch, self.results = one, results
        extra = aot.dependence(one, True)
        constants = {name: value for name, value in extra.items() if name.isupper()}
        options = {**one.options(nvidia=True), **{name: value for name, value in extra.items() if not name.isupper()}}
        whole = one._replace(arguments={**one.arguments, **constants})
        made = triton.compile(aot._source(whole), target=aot.TARGETS["sm_90"], options=options)
        self.ptx, self.shared = made.asm["ptx"], made.metadata.shared
        self.launcher = device.Launcher(made.src, made.metadata)
        self.given = [whole.arguments[name] for name in one.kernel.arg_names]

    def run(self, program: machine.Program, order: str) -> list[torch.Tensor]:
        outputs = [self.launch.arguments[name] for name in self.results]
        for output in outputs:
            output.fill_(torch.nan)
        grid = (*self.launch.grid, 1, 1)[:3]
        device.LOADED[-1] = (program, self.shared)
        device.Settings.orders, before = (order,), device.Settings.orders
        try:
            self.launcher(*grid, 0, -1, None, None, None, None, *self.given)
        finally:
            device.Settings.orders = before
        return [output.clone() for output in outputs]


def cases() -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    params = moderate_params(2).float()
    # What lies around the image's rows is not the image's, so that a mask at their ends counts.
    image, patch = torch.randn(2, 1, 16, 20)[:, :, :13, :11], torch.randn(2, 1, 5, 5)
    yield "read", read_launch(image, params, torch.empty(2, 1, 5, 5), 1, "ieee", 1), ("p_patch",)
    yield "write", write_launch(patch, params, torch.empty(2, 1, 13, 11), -1, "ieee"), ("p_image",)
    wide = torch.randn(1, 1, 12, 12)
    yield "write by wgmma", write_launch(wide, params[:1], torch.empty(1, 1, 40, 40), -1, "tf32"), ("p_image",)
    h, weight, bias = torch.randn(3, 88).bfloat16(), torch.randn(35, 88).bfloat16(), torch.randn(35).bfloat16()
    yield "linear", linear_launch(h, weight, bias, torch.empty(3, 35)), ("p_out",)
    inputs, weight, bias, c = (
        torch.randn(35, 72).half(),
        torch.randn(36, 72).half(),
        torch.randn(36).half(),
        torch.randn(35, 9),
    )
    gates, c_new, h_new = torch.empty(35, 36).half(), torch.empty(35, 9), torch.empty(35, 9).half()
    yield "cell", cell_launch(inputs, weight, bias, c, gates, c_new, [h_new]), ("p_gates", "p_c_new")
    s = Shape(2, 1, 2, 17, 20, 1, 1, 12, 12)
    head, canvas, x = torch.randn(1, s.patch_numel + 10), torch.randn(*s.image), torch.rand(*s.image)
    grads = torch.randn(1, s.read_numel), torch.zeros(*s.image), torch.empty_like(head)
    yield (
        "gradient around a canvas",
        canvas_backward_launch(head, canvas, x, *grads, None, s, True, False, "ieee"),
        ("p_grad_head",),
    )


def needed(one: parser.Instruction) -> bool:
    """Whether an instruction is there to keep threads apart, or has a mask that does."""
    kinds = ("bar.sync", "bar.warp", "cp.async.wait", "griddepcontrol.wait", "wgmma.wait", "wgmma.fence", "fence.proxy")
    return one.opcode.startswith(kinds)


def without(ptx: str, index: int, mask_only: bool) -> machine.Program:
    one = parser.Kernel(ptx)
    taken = one.instructions[index]
    if mask_only:
        one.instructions[index] = taken._replace(guard=None)
    else:
        one.instructions[index] = taken._replace(guard=None, opcode="griddepcontrol.launch_dependents", operands=())
    return machine.Program(one)


@pytest.mark.parametrize("name", ["read", "write", "write by wgmma", "linear"])
def test_a_kernel_without_one_of_its_barriers_waits_or_masks_is_found_out(name: str) -> None:
    launched, results = next((one, results) for case, one, results in cases() if case == name)
    compiled = Compiled(launched, results)
    whole = parser.Kernel(compiled.ptx)
    right = compiled.run(machine.Program(whole), "together")
    assert all(result.isfinite().all() for result in right)
    silent, tried = [], 0
    for index, one in enumerate(whole.instructions):
        masked = one.guard is not None and ".global" in one.opcode
        if not needed(one) and not masked:
            continue
        tried += 1
        try:
            results_without = compiled.run(without(compiled.ptx, index, masked), "together")
        except faults.Fault:
            continue
        if all(torch.equal(a, b) for a, b in zip(right, results_without, strict=True)):
            silent.append(f"{one.where}: {one.text}")
    assert tried >= 5
    assert not silent, f"{len(silent)} of {tried}: {silent}"


@pytest.mark.parametrize("name", ["read", "write", "write by wgmma", "linear", "cell", "gradient around a canvas"])
def test_warps_in_any_order_give_the_same_bits(name: str) -> None:
    """The last warp first, and in slices drawn at random; what is asynchronous as late as it may, and at once."""
    launched, results = next((one, results) for case, one, results in cases() if case == name)
    compiled = Compiled(launched, results)
    assert launched.num_warps > 1
    changed = [value for value in launched.arguments.values() if isinstance(value, torch.Tensor)]
    before = [tensor.clone() for tensor in changed]
    program = machine.Program(parser.Kernel(compiled.ptx))
    found = {}
    for order in machine.ORDERS:
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        found[order] = compiled.run(program, order)
    for order, outputs in found.items():
        for one, other in zip(outputs, found["together"], strict=True):
            assert one.isfinite().all(), order
            assert torch.equal(one, other), order
