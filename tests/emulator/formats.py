"""PTX's types as numpy's, and the roundings that numpy lacks: bfloat16, tf32, fused multiply-add, flushed subnormals."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any

UNSIGNED = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}
#: How a value of each type is held; bfloat16, tf32 and pairs as their bits.
TYPES = {
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{"bf16": np.dtype(np.uint16), "f16x2": np.dtype(np.uint32), "bf16x2": np.dtype(np.uint32), "tf32": np.dtype(np.uint32)},
    "pred": np.dtype(np.bool_),
}
F32, F64, U16, U32, U64, I64 = (np.dtype(name) for name in ("f4", "f8", "u2", "u4", "u8", "i8"))
SMALLEST = np.float32(2.0**-126)
#: What float32, bfloat16 and float16 arithmetic gives for a NaN.
NAN32, NAN16 = np.uint32(0x7FFFFFFF), np.uint16(0x7FFF)


def from_bf16(bits: Array) -> Array:
    return (bits.astype(U32) << np.uint32(16)).view(F32)


def to_bf16(values: Array) -> Array:
    """Of float32, to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, F32).view(U32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(U16)
    return np.where(np.isnan(values), NAN16, rounded)


def double_to_bf16(values: Array) -> Array:
    """Of float64, rounded once."""
    bits = np.ascontiguousarray(values, F64).view(U64)
    cut = (bits + np.uint64((1 << 44) - 1) + ((bits >> np.uint64(45)) & np.uint64(1))) & np.uint64(
        (2**64 - 1) ^ ((1 << 45) - 1)
    )
    normal = np.abs(values) >= 2.0**-126
    return to_bf16(np.where(normal & np.isfinite(values), cut.view(F64), values).astype(F32))


def from_f16(bits: Array) -> Array:
    return np.ascontiguousarray(bits).view(np.float16).astype(F32)


def to_f16(values: Array) -> Array:
    return np.where(np.isnan(values), NAN16, values.astype(np.float16).view(U16))


def halves(pairs: Array) -> tuple[Array, Array]:
    """The lower and the upper 16 bits of each 32."""
    return (pairs & np.uint32(0xFFFF)).astype(U16), (pairs >> np.uint32(16)).astype(U16)


def joined(lower: Array, upper: Array) -> Array:
    return lower.astype(U32) | (upper.astype(U32) << np.uint32(16))


def widened(bits: Array, kind: str) -> Array:
    """float32 of bf16 or f16 bits; of tf32 operands, whose last 13 bits a tensor core does not see."""
    if kind == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(F32)
    return from_bf16(bits) if kind == "bf16" else from_f16(bits)


def to_tf32(values: Array, away: bool) -> Array:
    """cvt.rna (ties away from zero) and cvt.rn (ties to even)."""
    bits = np.ascontiguousarray(values, F32).view(U32)
    half = np.uint32(0x1000) if away else np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    rounded = (bits + half) & np.uint32(0xFFFFE000)
    return np.where(np.isnan(values), NAN32, np.where(np.isinf(values), bits, rounded))


def flushed(values: Array) -> Array:
    """.ftz: subnormal float32 become zeros of their sign."""
    if values.dtype != F32:
        return values
    return np.where(np.abs(values) < SMALLEST, np.copysign(np.float32(0), values), values)


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b of float64 rounded to odd, so that rounding once more to fewer than 52 bits is right."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    bits = np.ascontiguousarray(total).view(U64)
    # Towards the exact sum where that is not `total` and the last bit is even.
    step = np.where((lost > 0) == (total > 0), np.uint64(1), np.uint64(2**64 - 1))
    inexact = (lost != 0) & np.isfinite(total) & ((bits & np.uint64(1)) == 0)
    return np.where(inexact & (total != 0), (bits + step).view(F64), total)


def fused(a: Array, b: Array, c: Array) -> Array:
    """fma.rn.f32: rounded once. A float64 product of float32 is exact; only ties of its sum can be rounded wrongly."""
    product = np.multiply(a, b, dtype=F64)
    total = product + c
    result = total.astype(F32)
    doubtful = (total.view(U64) & np.uint64(0x1FFFFFFF)) == np.uint64(0x10000000)
    doubtful |= (np.abs(total) < 2.0**-125) & (total != 0)
    if doubtful.any():
        c = np.broadcast_to(c, total.shape)
        result[doubtful] = _odd_sum(product[doubtful], c[doubtful].astype(F64)).astype(F32)
    return result


def _split(a: Array) -> tuple[Array, Array]:
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def fused_double(a: Array, b: Array, c: Array) -> Array:
    """fma.rn.f64 by Dekker's exact products: rounded once but for sums within 2^-106 of a tie."""
    product = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    lost = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    total = product + c
    part = total - product
    lost = lost + ((product - (total - part)) + (c - part))
    return np.where(np.isfinite(lost), total + lost, total)


def approximate(values: Array, exact: Array, bits: float) -> Array:
    """float32 with an error of up to 2^-bits, relative, where the exact result (float64) is no float32: a function of the
    argument, as the hardware's approximations are, and as far off as they may be."""
    rounded = exact.astype(F32)
    mixed = (np.ascontiguousarray(values, F32).view(U32) * np.uint32(2654435761)) >> np.uint32(12)
    noise = (mixed.astype(F64) / 2.0**19 - 1.0) * 2.0**-bits
    # A float32 itself is off by up to 2^-24.
    return np.where(rounded == exact, rounded, (exact * (1.0 + noise)).astype(F32))
