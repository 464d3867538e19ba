"""sigmoid and tanh that overflow nowhere, for float32 and float64, compiled or interpreted; exp above its tangent."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(b):
    """exp may become infinite for b far below zero, and the result is then zero as it must be."""
    return 1.0 / (1.0 + tl.exp(-b))


@triton.jit
def tanh_for(b, OPERANDS: tl.constexpr):
    """tanh beside products of such operands: of half precision it need not be exact to its last bit near zero, and is made
    by one division, right to 1e-7."""
    return tanh(b) if tl.float32 == OPERANDS else 1.0 - 2.0 / (1.0 + tl.exp(2.0 * b))


@triton.jit
def tanh(b):
    """Without libdevice, which the interpreter has not. Near zero (1 - t) / (1 + t) would cancel: Cephes' rational instead."""
    b_t = tl.exp(-2.0 * tl.abs(b))
    b_far = (1.0 - b_t) / (1.0 + b_t)
    b_far = tl.where(b < 0.0, -b_far, b_far)
    # Kept small where it is not used, so that it overflows nowhere.
    b_near = tl.where(tl.abs(b) < 0.625, b, 0.0)
    b_z = b_near * b_near
    b_p = (-9.64399179425052238628e-1 * b_z - 9.92877231001918586564e1) * b_z - 1.61468768441708447952e3
    b_q = ((b_z + 1.12811678491632931402e2) * b_z + 2.23548839060100448583e3) * b_z + 4.84406305325125486048e3
    return tl.where(tl.abs(b) < 0.625, b_near + b_near * b_z * b_p / b_q, b_far)


@triton.jit
def above_tangent(b, b_exp):
    """exp(b) - 1 - b in float32, which the difference is not near zero, all the less as a device's exp has 22 bits of its
    own: there Taylor's series. b_exp: exp(b)."""
    b_near = tl.where(tl.abs(b) < 0.5, b, 0.0)
    b_sum = b_near * (1 / 362880) + 1 / 40320
    b_sum = b_sum * b_near + 1 / 5040
    b_sum = b_sum * b_near + 1 / 720
    b_sum = b_sum * b_near + 1 / 120
    b_sum = b_sum * b_near + 1 / 24
    b_sum = b_sum * b_near + 1 / 6
    b_sum = b_sum * b_near + 1 / 2
    return tl.where(tl.abs(b) < 0.5, b_near * b_near * b_sum, b_exp - 1.0 - b)
