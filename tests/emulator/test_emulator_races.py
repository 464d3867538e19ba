"""What the emulator finds out, in kernels written for it: each right as it stands, and wrong in one way."""

from __future__ import annotations

import pytest
import torch
from emulated import kernel, launch

pytest.importorskip("triton", reason="the emulator is for what triton compiles")

from emulator import faults, machine

ORDERS = list(machine.ORDERS)
#: %r6: a thread's own four bytes of shared memory; %r7: those of the thread on the other side; %rd9: its own element of p0.
PLACES = """
	mov.u32 %r5, global_smem;
	mad.lo.s32 %r6, %r1, 4, %r5;
	xor.b32 %r8, %r1, {other};
	mad.lo.s32 %r7, %r8, 4, %r5;
	mad.wide.u32 %rd9, %r1, 4, %rd1;
"""
EXCHANGE = "{places}\tst.shared.b32 [%r6], %r1;\n\t{between}\n\tld.shared.b32 %r9, [%r7];\n\tst.global.b32 [%rd9], %r9;"


def exchange(other: int, between: str, order: str) -> torch.Tensor:
    out = torch.zeros(64, dtype=torch.int32)
    body = EXCHANGE.format(places=PLACES.format(other=other), between=between)
    launch(kernel(body, 1, threads=64), [out], order=order)
    return out


@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_between_warps_needs_a_barrier(order: str) -> None:
    assert torch.equal(exchange(32, "bar.sync 0;", order), torch.arange(64, dtype=torch.int32) ^ 32)
    for between in ("", "bar.warp.sync -1;"):
        with pytest.raises(faults.Race, match="shared memory"):
            exchange(32, between, order)


@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_between_lanes_needs_their_warp_to_meet(order: str) -> None:
    assert torch.equal(exchange(1, "bar.warp.sync -1;", order), torch.arange(64, dtype=torch.int32) ^ 1)
    with pytest.raises(faults.Race, match="shared memory"):
        exchange(1, "", order)


@pytest.mark.parametrize("order", ORDERS)
def test_programs_have_nothing_in_common(order: str) -> None:
    """A store of every program to one element; a load of what another stores. Equal values are no race."""
    out = torch.zeros(64, dtype=torch.int32)
    for value, racy in (("%r2", True), ("7", False)):
        body = f"\tmad.wide.u32 %rd9, %r1, 4, %rd1;\n\tmov.b32 %r9, {value};\n\tst.global.b32 [%rd9], %r9;"
        if racy:
            with pytest.raises(faults.Race, match="p0"):
                launch(kernel(body, 1), [out], programs=3, order=order)
        else:
            launch(kernel(body, 1), [out], programs=3, order=order)
    body = "\tmad.lo.s32 %r4, %r2, 32, %r1;\n\tmad.wide.u32 %rd9, %r4, 4, %rd1;\n\tst.global.b32 [%rd9], %r4;\n\t"
    body += "xor.b32 %r5, %r4, {other};\n\tmad.wide.u32 %rd8, %r5, 4, %rd1;\n\tld.global.b32 %r9, [%rd8];"
    launch(kernel(body.format(other=0), 1), [out], programs=2, order=order)
    with pytest.raises(faults.Race, match="p0"):
        launch(kernel(body.format(other=32), 1), [out], programs=2, order=order)


def test_elements_are_the_arguments_own() -> None:
    """Not the storage's: neither what lies between its rows nor another argument's."""
    whole = torch.zeros(4, 16, dtype=torch.int32)
    left, right = whole[:, :8], whole[:, 8:]
    body = "\tmad.wide.u32 %rd9, %r1, 4, %rd1;\n\tsetp.lt.u32 %p1, %r1, {most};\n\t@%p1 st.global.b32 [%rd9], %r1;"
    launch(kernel(body.format(most=8), 2), [left, right])
    assert torch.equal(left[0], torch.arange(8, dtype=torch.int32))
    with pytest.raises(faults.OutOfBounds, match=r"element 8 of p0 \(4, 8\)"):
        launch(kernel(body.format(most=9), 2), [left, right])
    with pytest.raises(faults.OutOfBounds):
        launch(kernel("\tst.global.b32 [%rd1+-4], %r1;", 1), [left])


def test_alignment() -> None:
    out = torch.zeros(16)
    with pytest.raises(faults.Misaligned):
        launch(kernel("\tst.global.v4.b32 [%rd1+4], {%r1, %r1, %r1, %r1};", 1), [out])
    with pytest.raises(faults.Misaligned):
        launch(kernel("\tmov.u32 %r5, global_smem;\n\tst.shared.b32 [%r5+2], %r1;", 0), [])


def test_shared_memory_ends() -> None:
    for address in ("[%r5+1024]", "[%r5+-4]"):
        with pytest.raises(faults.OutOfBounds):
            launch(kernel(f"\tmov.u32 %r5, global_smem;\n\tst.shared.b32 {address}, %r1;", 0), [])


COPY = """
	mov.u32 %r5, global_smem;
	mad.lo.s32 %r6, %r1, 16, %r5;
	mad.wide.u32 %rd9, %r1, 16, %rd1;
	mad.wide.u32 %rd8, %r1, 16, %rd2;
	cp.async.cg.shared.global [%r6], [%rd9], 16, %r10;
	cp.async.commit_group;
	{wait}
	{barrier}
	ld.shared.v4.b32 {{%r20, %r21, %r22, %r23}}, [%r6];
	st.global.v4.b32 [%rd8], {{%r20, %r21, %r22, %r23}};
"""


@pytest.mark.parametrize("order", ORDERS)
def test_copies_arrive_when_they_are_waited_for(order: str) -> None:
    given, out = torch.randn(32, 4), torch.zeros(32, 4)

    def run(wait: str, size: int = 16) -> torch.Tensor:
        body = f"\tmov.b32 %r10, {size};" + COPY.format(wait=wait, barrier="bar.sync 0;")
        launch(kernel(body, 2), [given, out], order=order)
        return out

    assert torch.equal(run("cp.async.wait_group 0;"), given)
    assert not run("cp.async.wait_group 0;", size=0).any()
    late = run("cp.async.wait_group 1;")
    assert late.isnan().all() == machine.ORDERS[order].late


@pytest.mark.parametrize("order", ORDERS)
def test_everybody_comes_to_a_barrier(order: str) -> None:
    with pytest.raises(faults.Diverged):
        launch(
            kernel("\tsetp.lt.u32 %p1, %r1, 32;\n\t@%p1 bra $L__end;\n\tbar.sync 0;\n$L__end:\n", 0, threads=64),
            [],
            order=order,
        )


def test_lanes_that_part_meet_again() -> None:
    """Also where the place they meet at lies before the longer way: a shuffle waits for all lanes."""
    body = """
	mad.wide.u32 %rd9, %r1, 4, %rd1;
	mov.b32 %r9, 1;
	setp.lt.u32 %p1, %r1, 7;
	@%p1 bra $L__long;
$L__join:
	shfl.sync.bfly.b32 %r11, %r9, 16, 31, -1;
	st.global.b32 [%rd9], %r11;
	bra.uni $L__end;
$L__long:
	mov.b32 %r9, 5;
	bra.uni $L__join;
$L__end:
"""
    out = torch.zeros(32, dtype=torch.int32)
    launch(kernel(body, 1), [out])
    assert torch.equal(out, torch.where((torch.arange(32) ^ 16) < 7, 5, 1).int())


def test_the_kernel_before_is_waited_for() -> None:
    out = torch.zeros(32)
    launch(kernel("\tgriddepcontrol.wait;\n\tst.global.b32 [%rd1], 0;", 1), [out])
    with pytest.raises(faults.TooEarly):
        launch(kernel("\tst.global.b32 [%rd1], 0;\n\tgriddepcontrol.wait;", 1), [out])


def test_a_kernel_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ENDLESS", 1000)
    with pytest.raises(faults.Fault, match="does not end"):
        launch(kernel("$L__again:\n\tadd.s32 %r5, %r1, 1;\n\tbra.uni $L__again;", 0), [])


def test_lanes_that_store_copies_of_one_sum_need_the_same_bits_of_it() -> None:
    """Every lane stores 1, or the next float32 after it, in one place: which of them stays PTX leaves open."""
    body = "\tand.b32 %r4, %r1, 1;\n\tadd.s32 %r5, %r4, 0x3F800000;\n\tst.global.b32 [%rd1], %r5;"
    with pytest.raises(faults.Race, match="different values"):
        launch(kernel(body, 1), [torch.zeros(1)])
