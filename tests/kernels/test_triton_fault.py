"""A fault of Triton's that this project's kernels are written around, by itself."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="there is nothing to compile without triton")

from fastdraw import env

if env.triton_interpreted():
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.compiler import ASTSource

from emulator import device, machine, parser
from fastdraw.kernels.triton import aot, guards


@triton.jit
def sum_of_products(p_a, p_b, p_out, K: tl.constexpr):
    o, k = tl.arange(0, 16), tl.arange(0, K)
    b_a = tl.load(p_a + o[:, None] * K + k[None, :])
    b_b = tl.load(p_b + k[:, None] * 16 + o[None, :])
    tl.store(p_out + o[:, None] * 16 + o[None, :], tl.sum(b_a[:, :, None] * b_b[None, :, :], axis=1))


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Triton (seen in 3.6.0, 3.7.1 and 3.9.0) makes a tl.dot in tf32 of a sum over a product of broadcasts, and counts a"
    " depth of 2 four times. If this test passes, Triton is mended: rows.product may sum so again once every"
    " supported version is.",
)
@pytest.mark.parametrize("depth", [2, 4, 8, 16])
def test_a_sum_of_products_is_no_dot(depth: int) -> None:
    signature = {"p_a": "*fp32", "p_b": "*fp32", "p_out": "*fp32", "K": "constexpr"}
    made = triton.compile(ASTSource(sum_of_products, signature, {"K": depth}), target=aot.TARGETS["sm_80"])
    a, b, out = torch.randn(16, depth), torch.randn(depth, 16), torch.empty(16, 16)
    device.LOADED[-2] = (machine.Program(parser.Kernel(made.asm["ptx"])), made.metadata.shared)
    device.Launcher(made.src, made.metadata)(1, 1, 1, 0, -2, None, None, None, None, a, b, out, depth)
    torch.testing.assert_close(out.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)
    assert not guards.faults(made.asm, "ieee")


def test_the_guard_sees_it() -> None:
    """In each of the compiler's languages; and nothing where the source writes a tl.dot in ieee."""
    source = 'func {\n tt.return loc(#loc)\n}\n#loc = loc("/a/kernel.py":7:3)'
    dot = (
        "%0 = tt.dot %a, %b, %c, inputPrecision = tf32 : tensor<16x2xf32> * tensor<2x16xf32> -> tensor<16x16xf32> loc(#loc1)\n"
    )
    places = '#loc = loc("/a/kernel.py":7:3)\n#loc1 = loc(callsite(#loc at #loc))\n'
    found = guards.faults({"source": source, "ttir": dot + places, "ttgir": "", "ptx": ""}, "ieee")
    assert [sentence.split(":")[0] for sentence in found] == ["ttir", "ttir"]
    assert "kernel.py:7:3" in found[0]
    wanted = {
        "source": dot + places,
        "ttir": dot + places,
        "ttgir": "",
        "ptx": "\tmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {",
    }
    assert guards.faults(wanted, "tf32") == []
    assert len(guards.faults(wanted, "ieee")) == 2
    assert guards.faults({**wanted, "source": source}, "tf32")[-1].startswith("ptx: mma.sync")


def test_a_wait_comes_before_all_else() -> None:
    begin, wait, load = ".entry k(\n)\n{\n", "\tgriddepcontrol.wait;\n", "\t@%p1 ld.global.b32 %r1, [%rd1];\n"
    assert guards.waits_first(begin + wait + load)
    assert not guards.waits_first(begin + load + wait)
    assert not guards.waits_first(begin + load)
    assert not guards.waits_first(begin + "\t@%p1 bra $L;\n" + wait + "$L:\n" + load)
    assert not guards.waits_first(begin + "\tcp.async.cg.shared.global [%r1], [%rd1], 16;\n" + wait)
