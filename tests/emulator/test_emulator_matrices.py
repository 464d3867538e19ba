"""The emulator's matrices of a warp against numpy: fragments as PTX's manual lays them out, moved through shared memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulated import kernel, launch

pytest.importorskip("triton", reason="the emulator is for what triton compiles")

from emulator import faults

LANE = np.arange(32)
GROUP, PLACE = LANE // 4, LANE % 4


def loads(first: int, count: int, parameter: int, size: int = 4) -> str:
    """Registers first, first + 1, ...: a lane's `count` values of [32, count]."""
    bank = {4: "%r", 8: "%rd"}[size]
    lines = [f"\tmad.wide.u32 %rd30, %r1, {size * count}, %rd{parameter};"]
    return "\n".join([*lines, *(f"\tld.global.b{8 * size} {bank}{first + i}, [%rd30+{size * i}];" for i in range(count))])


def stores(first: int, count: int, parameter: int, size: int = 4) -> str:
    bank = {4: "%r", 8: "%rd"}[size]
    lines = [f"\tmad.wide.u32 %rd30, %r1, {size * count}, %rd{parameter};"]
    return "\n".join([*lines, *(f"\tst.global.b{8 * size} [%rd30+{size * i}], {bank}{first + i};" for i in range(count))])


def named(first: int, count: int, bank: str = "%r") -> str:
    return "{" + ", ".join(f"{bank}{first + i}" for i in range(count)) + "}"


def product(shape: str, left: int, right: int) -> str:
    """Of so many registers from %r10 and %r20 on, added to those from %r30 on."""
    return f"\tmma.sync.aligned.{shape} {named(40, 4)}, {named(10, left)}, {named(20, right)}, {named(30, 4)};"


def pairs(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Two halves as the 32 bits of a register."""
    bits = [part.view(torch.int16).int() & 0xFFFF for part in (low, high)]
    return bits[0] | (bits[1] << 16)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_products_of_halves(dtype: torch.dtype, depth: int) -> None:
    a, b, c = torch.randn(16, depth).to(dtype), torch.randn(depth, 8).to(dtype), torch.randn(16, 8)
    # By the manual: rows GROUP and GROUP + 8 by columns 2 PLACE, 2 PLACE + 1, and those 8 further on.
    parts_a = []
    for column in range(0, depth, 8):
        for row in (GROUP, GROUP + 8):
            parts_a.append(pairs(a[row, column + 2 * PLACE], a[row, column + 2 * PLACE + 1]))
    parts_b = [pairs(b[k + 2 * PLACE, GROUP], b[k + 2 * PLACE + 1, GROUP]) for k in range(0, depth, 8)]
    parts_c = [c[row, 2 * PLACE + i] for row in (GROUP, GROUP + 8) for i in (0, 1)]
    out = torch.zeros(32, 4)
    inputs = [torch.stack(parts, 1).contiguous() for parts in (parts_a, parts_b, parts_c)]
    n, m = len(parts_a), len(parts_b)
    kind = {torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
    body = "\n".join(
        [
            *(loads(10, n, 1), loads(20, m, 2), loads(30, 4, 3)),
            product(f"m16n8k{depth}.row.col.f32.{kind}.{kind}.f32", n, m),
            stores(40, 4, 4),
        ]
    )
    launch(kernel(body, 4), [*inputs, out])
    exact = a.double() @ b.double() + c.double()
    expected = torch.stack([exact[row, 2 * PLACE + i] for row in (GROUP, GROUP + 8) for i in (0, 1)], 1)
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=0)


@pytest.mark.parametrize("depth", [4, 8])
def test_products_of_tf32_see_nineteen_bits(depth: int) -> None:
    a, b = torch.randn(16, depth), torch.randn(depth, 8)
    parts_a = [a[row, column + PLACE] for column in range(0, depth, 4) for row in (GROUP, GROUP + 8)]
    parts_b = [b[k + PLACE, GROUP] for k in range(0, depth, 4)]
    out = torch.zeros(32, 4)
    inputs = [torch.stack(parts, 1).contiguous() for parts in (parts_a, parts_b)]
    n, m = len(parts_a), len(parts_b)
    body = "\n".join(
        [
            *(loads(10, n, 1), loads(20, m, 2)),
            *(f"\tmov.b32 %r{30 + i}, 0f3F800000;" for i in range(4)),
            product(f"m16n8k{depth}.row.col.f32.tf32.tf32.f32", n, m),
            stores(40, 4, 3),
        ]
    )
    launch(kernel(body, 3), [*inputs, out])
    cut = [(one.view(torch.int32) & -0x2000).view(torch.float32).double() for one in (a, b)]
    exact = cut[0] @ cut[1] + 1
    expected = torch.stack([exact[row, 2 * PLACE + i] for row in (GROUP, GROUP + 8) for i in (0, 1)], 1)
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=0)
    assert (
        out - torch.stack([(a @ b + 1)[row, 2 * PLACE + i] for row in (GROUP, GROUP + 8) for i in (0, 1)], 1)
    ).abs().max() > 1e-5


def test_products_of_doubles() -> None:
    a, b, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((8, 4), (4, 8), (8, 8)))
    inputs = [a[GROUP, PLACE, None].contiguous(), b[PLACE, GROUP, None].contiguous()]
    inputs.append(torch.stack([c[GROUP, 2 * PLACE], c[GROUP, 2 * PLACE + 1]], 1))
    out = torch.zeros(32, 2, dtype=torch.float64)
    body = "\n".join(
        [
            *(loads(10, 1, 1, 8), loads(11, 1, 2, 8), loads(12, 2, 3, 8)),
            f"\tmma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {named(14, 2, '%rd')}, {{%rd10}}, {{%rd11}},",
            f"\t{named(12, 2, '%rd')};",
            stores(14, 2, 4, 8),
        ]
    )
    launch(kernel(body, 4), [*inputs, out])
    exact = a @ b + c
    torch.testing.assert_close(
        out, torch.stack([exact[GROUP, 2 * PLACE], exact[GROUP, 2 * PLACE + 1]], 1), rtol=1e-15, atol=1e-15
    )


#: A lane's address in shared memory is 16 bytes a lane.
ROWS = "\tmov.u32 %r5, global_smem;\n\tmad.lo.s32 %r6, %r1, 16, %r5;\n"


@pytest.mark.parametrize("turned", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_go_to_shared_memory_and_back(count: int, turned: str) -> None:
    """ldmatrix of rows written plainly, and plain reads of what stmatrix wrote."""
    cells = torch.randint(0, 1 << 15, (4, 8, 8), dtype=torch.int16)
    rows = cells.view(32, 8).view(torch.int32).contiguous()
    out, back = torch.zeros(32, count, dtype=torch.int32), torch.zeros(32, 4, dtype=torch.int32)
    body = "\n".join(
        [
            loads(10, 4, 1),
            f"{ROWS}\tst.shared.v4.b32 [%r6], {named(10, 4)};\n\tbar.sync 0;",
            f"\tldmatrix.sync.aligned.m8n8.x{count}{turned}.shared.b16 {named(20, count)}, [%r6];",
            f"\tbar.sync 0;\n\tst.shared.v4.b32 [%r6], {named(10, 4)};\n\tbar.sync 0;",
            f"\tstmatrix.sync.aligned.m8n8.x{count}{turned}.shared.b16 [%r6], {named(20, count)};",
            f"\tbar.warp.sync -1;\n\tld.shared.v4.b32 {named(30, 4)}, [%r6];",
            stores(20, count, 2),
            stores(30, 4, 3),
        ]
    )
    launch(kernel(body, 3), [rows, out, back])
    seen = cells.mT if turned else cells
    expected = torch.stack([pairs(seen[i][GROUP, 2 * PLACE], seen[i][GROUP, 2 * PLACE + 1]) for i in range(count)], 1)
    assert torch.equal(out, expected)
    assert torch.equal(back, rows)


def test_a_matrix_of_a_part_of_a_warp_never_comes() -> None:
    body = f"{ROWS}\tsetp.lt.u32 %p1, %r1, 16;\n\t@%p1 bra $L__half;\n\tbra.uni $L__end;\n$L__half:\n"
    body += "\tldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r20}, [%r6];\n$L__end:\n"
    with pytest.raises(faults.Diverged):
        launch(kernel(body, 0), [])
