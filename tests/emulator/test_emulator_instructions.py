"""The emulator's instructions against numpy on random bits, special values among them; and it knows what it does not know."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from emulated import apply, kernel, launch

pytest.importorskip("triton", reason="the emulator is for what triton compiles")

from emulator import faults, formats, machine

COUNT = 1024
rng = np.random.default_rng(0)


def bits(dtype: str, count: int = COUNT) -> np.ndarray:
    """Random bits, and of floats the special ones."""
    kind = np.dtype(dtype)
    values = rng.integers(0, 256, (count, kind.itemsize), dtype=np.uint8).view(kind)[:, 0]
    if kind.kind == "f":
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(kind).tiny, np.finfo(kind).smallest_subnormal, 1.0, -1.5]
        values[: len(special)] = special
        # Sums and products of near magnitudes, so that rounding is what is tested.
        values[len(special) : count // 2] = rng.standard_normal(count // 2 - len(special)).astype(kind)
    else:
        values[:4] = [0, 1, np.iinfo(kind).max, np.iinfo(kind).min]
    return values


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    """The same bits, but that a NaN is a NaN."""
    expected = np.asarray(expected)
    wrong = (
        actual != expected if actual.dtype.kind != "f" else ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    )
    assert not wrong.any(), (actual[wrong][:4], expected[wrong][:4], np.flatnonzero(wrong)[:4])


FLOATS = [("f32", "f4"), ("f64", "f8")]


@pytest.mark.parametrize(("kind", "dtype"), FLOATS, ids=["f32", "f64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "min", "max", "div.rn"])
def test_two_floats(name: str, kind: str, dtype: str) -> None:
    a, b = bits(dtype), bits(dtype)[::-1].copy()
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "min": np.fmin, "max": np.fmax}
    with np.errstate(all="ignore"):
        same(apply(f"{name}.{kind}", [a, b], dtype), function[name.split(".")[0]](a, b))


@pytest.mark.parametrize(("kind", "dtype", "digits"), [("f32", "f4", 24), ("f64", "f8", 53)], ids=["f32", "f64"])
def test_multiply_add_rounds_once(kind: str, dtype: str, digits: int) -> None:
    a, b, c = (rng.standard_normal(COUNT).astype(dtype) for _ in range(3))
    # Sums that cancel, and sums that are a tie but for what the product's last bits say.
    c[:200] = -(a[:200] * b[:200])
    eps = 2.0 ** (1 - digits)
    a[200:300], b[200:300] = 1 + eps * np.arange(100, dtype=dtype), 1 + eps * np.arange(1, 101, dtype=dtype)
    c[200:300] = 2.0 ** (digits - 1) * (np.arange(100) % 7 + 1)
    a[300:310], b[300:310], c[300:310] = 2.0**-74, 1.5, 2.0**-149
    actual = apply(f"fma.rn.{kind}", [a, b, c], dtype)

    def exact(x: float, y: float, z: float) -> float:
        total = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        if total == 0:
            return 0.0
        scale = max(math.frexp(float(abs(total)))[1] - digits, -149 if kind == "f32" else -1074)
        return float(Fraction(round(total / Fraction(2) ** scale)) * Fraction(2) ** scale)

    same(actual, np.array([exact(*row) for row in zip(a, b, c, strict=True)]).astype(dtype))


@pytest.mark.parametrize("name", ["ex2.approx", "lg2.approx", "sqrt.approx", "rcp.approx", "rsqrt.approx"])
def test_approximations_are_as_far_off_as_they_may_be(name: str) -> None:
    values = rng.uniform(0.01, 30, COUNT).astype("f4")
    functions = {"ex2": np.exp2, "lg2": np.log2, "sqrt": np.sqrt, "rcp": np.reciprocal, "rsqrt": lambda a: 1 / np.sqrt(a)}
    exact = functions[name.split(".")[0]](values.astype("f8"))
    off = np.abs(apply(f"{name}.f32", [values], "f4") - exact) / np.abs(exact)
    assert 2.0**-25 < off.max() < 2.0**-21
    same(apply(f"{name}.f32", [values], "f4"), apply(f"{name}.f32", [values], "f4"))


def test_division_in_full() -> None:
    a, b = rng.uniform(-9, 9, COUNT).astype("f4"), rng.uniform(1, 9, COUNT).astype("f4")
    exact = a.astype("f8") / b
    assert 2.0**-25 < (np.abs(apply("div.full.f32", [a, b], "f4") - exact) / np.abs(exact)).max() < 2.0**-21


INTEGERS = [("s32", "i4"), ("u32", "u4"), ("s64", "i8"), ("u64", "u8")]


@pytest.mark.parametrize(("kind", "dtype"), INTEGERS, ids=[kind for kind, _ in INTEGERS])
@pytest.mark.parametrize("name", ["add", "sub", "mul.lo", "min", "max", "div", "rem"])
def test_two_integers(name: str, kind: str, dtype: str) -> None:
    a, b = bits(dtype), bits(dtype)[::-1].copy()
    b[b == 0] = 3
    b[1::2] = rng.integers(1, 99, COUNT // 2)

    def toward_zero(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        rows = zip(x, y, strict=True)
        return np.array([abs(int(p)) // abs(int(q)) * (1 if (p < 0) == (q < 0) else -1) for p, q in rows], object).astype(
            dtype
        )

    with np.errstate(all="ignore"):
        functions = {"add": np.add, "sub": np.subtract, "mul.lo": np.multiply, "min": np.minimum, "max": np.maximum}
        functions |= {"div": toward_zero, "rem": lambda x, y: x - toward_zero(x, y) * y}
        if dtype.startswith("i"):
            a[a == np.iinfo(dtype).min] = 5
        same(apply(f"{name}.{kind}", [a, b], dtype), functions[name](a, b))


@pytest.mark.parametrize("sign", ["s", "u"])
def test_wide_products(sign: str) -> None:
    small, wide = ("i4", "i8") if sign == "s" else ("u4", "u8")
    a, b, c = bits(small), bits(small)[::-1].copy(), bits(wide)
    exact = a.astype(wide) * b.astype(wide)
    same(apply(f"mul.wide.{sign}32", [a, b], wide), exact)
    same(apply(f"mul.hi.{sign}32", [a, b], small), (exact >> np.dtype(wide).type(32)).astype(small))
    with np.errstate(all="ignore"):
        same(apply(f"mad.wide.{sign}32", [a, b, c], wide), exact + c)


def test_bits() -> None:
    a, b = bits("u4"), bits("u4")
    for name, function in {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.items():
        same(apply(f"{name}.b32", [a, b], "u4"), function(a, b))
    for count in (0, 1, 31, 32, 40, 2**31):
        step = np.full(COUNT, count, "u4")
        big = count >= 32
        same(apply("shl.b32", [a, step], "u4"), np.zeros_like(a) if big else a << step)
        same(apply("shr.u32", [a, step], "u4"), np.zeros_like(a) if big else a >> step)
        same(apply("shr.s32", [a, step], "u4"), (a.view("i4") >> min(count, 31)).view("u4"))
    python = [[(int(x) >> f) & ((1 << n) - 1) for x in a] for f, n in ((4, 14), (0, 32), (31, 5), (3, 0))]
    for (first, count), expected in zip(((4, 14), (0, 32), (31, 5), (3, 0)), python, strict=True):
        same(apply("bfe.u32", [a], "u4", f", {first}, {count}"), np.array(expected, "u4"))
        signed = np.array([x - (1 << count) if count and x >> (count - 1) & 1 else x for x in expected])
        if first + count <= 32:
            same(apply("bfe.s32", [a], "i4", f", {first}, {count}"), signed.astype("i4"))
    chosen = [int(x).to_bytes(4, "little") + int(y).to_bytes(4, "little") for x, y in zip(a, b, strict=True)]
    picked = np.array([int.from_bytes(bytes([row[k] for k in (0, 4, 3, 7)]), "little") for row in chosen], "u4")
    same(apply("prmt.b32", [a, b], "u4", ", 0x7340"), picked)


def test_conversions() -> None:
    single, double, ints = bits("f4"), bits("f8"), bits("i4")
    halves = bits("u2")
    with np.errstate(all="ignore"):
        same(apply("cvt.f64.f32", [single], "f8"), single.astype("f8"))
        same(apply("cvt.rn.f32.f64", [double], "f4"), double.astype("f4"))
        for name, function in {"rmi": np.floor, "rni": np.rint, "rzi": np.trunc, "rpi": np.ceil}.items():
            same(apply(f"cvt.{name}.f32.f32", [single], "f4"), function(single))
            clipped = np.clip(np.nan_to_num(function(single.astype("f8")), nan=0.0), -(2.0**31), 2.0**31 - 1)
            same(apply(f"cvt.{name}.s32.f32", [single], "i4"), clipped.astype("i4"))
        same(apply("cvt.rn.f32.s32", [ints], "f4"), ints.astype("f4"))
        same(apply("cvt.rn.f32.u64", [ints.astype("u8")], "f4"), ints.astype("u8").astype("f4"))
        same(apply("cvt.s64.s32", [ints], "i8"), ints.astype("i8"))
        same(apply("cvt.u16.u32", [ints.view("u4")], "u2"), ints.astype("u2"))
        same(apply("cvt.f32.f16", [halves], "f4"), halves.view("f2").astype("f4"))
        same(apply("cvt.rn.f16.f32", [single], "u2").view("f2"), single.astype("f2"))
        as_bfloat = torch.from_numpy(single.copy()).bfloat16().float().numpy()
        same((apply("cvt.rn.bf16.f32", [single], "u2").astype("u4") << 16).view("f4"), as_bfloat)
        pair = apply("cvt.rn.bf16x2.f32", [single, single[::-1].copy()], "u4")
        same((pair & np.uint32(0xFFFF0000)).view("f4"), as_bfloat)
        same((pair << np.uint32(16)).view("f4"), as_bfloat[::-1])
        rounded = apply("cvt.rna.tf32.f32", [single], "f4")
    finite = np.isfinite(single) & (np.abs(single) < 1e38) & (np.abs(single) > 1e-30)
    assert not (rounded[finite].view("u4") & 0x1FFF).any()
    assert (np.abs(rounded[finite] - single[finite]) <= np.abs(single[finite]) * 2.0**-11).all()


def test_comparisons() -> None:
    a, b = bits("f4"), bits("f4")
    b[100:200] = a[100:200]
    numbers = ~(np.isnan(a) | np.isnan(b))
    for name, function in {"lt": np.less, "eq": np.equal, "ge": np.greater_equal, "ne": np.not_equal}.items():
        same(apply(f"setp.{name}.f32", [a, b], "?"), function(a, b) & numbers)
        same(apply(f"setp.{name}u.f32", [a, b], "?"), function(a, b) | ~numbers)
        with_other = apply(f"setp.{name}.and.f32", [a, b, a > 0], "?")
        same(with_other, function(a, b) & numbers & (a > 0))
    same(apply("setp.num.f32", [a, b], "?"), numbers)
    same(apply("setp.lt.s32", [a.view("i4"), b.view("i4")], "?"), a.view("i4") < b.view("i4"))
    same(apply("setp.lt.u32", [a.view("u4"), b.view("u4")], "?"), a.view("u4") < b.view("u4"))
    same(apply("selp.b32", [a.view("u4"), b.view("u4"), a > 0], "u4"), np.where(a > 0, a.view("u4"), b.view("u4")))


def test_exchanges() -> None:
    a = bits("u4")
    rows = a.reshape(-1, 32)
    for step in (1, 2, 16):
        same(apply("shfl.sync.bfly.b32", [a], "u4", f", {step}, 31, -1"), rows[:, np.arange(32) ^ step].ravel())
    same(apply("shfl.sync.idx.b32", [a], "u4", ", 5, 31, -1"), rows[:, [5] * 32].ravel())
    up = np.where(np.arange(32) < 3, rows, np.roll(rows, 3, 1))
    same(apply("shfl.sync.up.b32", [a], "u4", ", 3, 0, -1"), up.ravel())
    same(apply("redux.sync.min.s32", [a], "i4", ", -1"), np.repeat(rows.view("i4").min(1), 32))
    same(apply("redux.sync.max.u32", [a], "u4", ", -1"), np.repeat(rows.max(1), 32))


def test_flushed_subnormals() -> None:
    tiny = np.array([1e-40, -1e-40, 1.0, 2.0**-126], "f4")
    same(formats.flushed(tiny), np.array([0.0, -0.0, 1.0, 2.0**-126], "f4"))
    same(apply("abs.ftz.f32", [tiny], "f4"), np.array([0.0, 0.0, 1.0, 2.0**-126], "f4"))


@pytest.mark.parametrize(
    "line",
    [
        "add.sat.f32 %r3, %r1, %r1;",
        "fma.rz.f32 %r3, %r1, %r1, %r1;",
        "ld.local.b32 %r3, [%rd1];",
        "ld.global.nc.b32 %r3, [%rd1];",
        "ld.volatile.shared.b32 %r3, [%r1];",
        "atom.global.add.f32 %r3, [%rd1], %r1;",
        "cp.async.bulk.commit_group;",
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r3}, {%r1}, {%r1}, {%r1};",
        "bar.sync 1, 64;",
        "mov.u32 %r3, %clock;",
        "cvt.rn.satfinite.e4m3x2.f32 %rs1, %r1, %r1;",
        "brx.idx %r1, table;",
        ".local .align 4 .b8 depot[16];",
    ],
)
def test_what_it_does_not_know_ends_the_test(line: str) -> None:
    """With its text; also where it would never be reached."""
    with pytest.raises(faults.Unknown) as caught:
        machine.Program(kernel(f"\tbra.uni $L__end;\n\t{line}\n$L__end:\n", 1))
    assert line.split(" ")[0].strip(".;") in str(caught.value)


def test_poison() -> None:
    """What was never written is NaN as a float, and out of bounds as an address."""
    out = torch.zeros(32)
    body = "\tmad.wide.u32 %rd9, %r1, 4, %rd1;\n\tadd.f32 %r7, %r8, 0f00000000;\n\tst.global.b32 [%rd9], %r7;"
    launch(kernel(body, 1), [out])
    assert out.isnan().all()
    with pytest.raises((faults.OutOfBounds, faults.Misaligned)):
        launch(kernel("\tst.global.b32 [%rd11], %r1;", 1), [out])
