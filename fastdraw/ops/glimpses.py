"""The loop over glimpses that all backends share; a backend gives the pieces (docs/design.md). Its reverse: glimpses_backward.

Forward, glimpse t (the paper's equations in brackets):
    canvas    canvas_t = canvas_{t-1} + write(patch, window) (8);  x^ = x - sigmoid(canvas_t) (3);  r = read(x, x^) (4)
    cell      h_enc = LSTM([r, h_dec, h_enc]) (5)
    latent    mu, log sigma = h_enc W + b (1, 2);  z = mu + sigma noise (6);  kl (11)
    cell      h_dec = LSTM([z, h_dec]) (7)
    linear    patch, window of the write, window of the next read = h_dec W + b (18, 21, 28)
One `canvas` holds write_t and the read that follows it, since both windows come from the same h_dec and meet in one canvas.

Nothing is concatenated: the inputs of both LSTMs are two buffers, encoder_in [T+1, B, 2R+h+K+h] = [r, h_dec, y, h_enc] and
decoder_in [T+1, B, Z+K+h] = [z, y, h_dec], and each piece writes into the columns that the next one reads. y are the K columns
of a class, none unless the model is conditional. Where no gradient is wanted each buffer has two slots instead of T + 1.

Without read attention r = [x, x^], of which x is the same at every glimpse. It is multiplied once: the encoder's bias becomes
x W_x + b, a row for each image, and r is x^ alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw.ops.contract import Pieces, Shape, plain_buffers


class Weights(NamedTuple):
    """Each layer as one matrix, in the dtype of the products, with its bias in the same; initial states.

    Matrices go to the loop as its backend wants them, made by `prepared`; before that, an LSTM's are two, and without read
    attention the encoder's begins with the columns of x.
    """

    encoder: Any  # [4h, 2R + h + K] and [4h, h]
    encoder_bias: Tensor
    latent: Any  # [2Z, h]
    latent_bias: Tensor
    decoder: Any  # [4h, Z + K] and [4h, h]
    decoder_bias: Tensor
    head: Any  # [patch, + 5 for the write's window, + 5 for the read's, h]
    head_bias: Tensor
    canvas: Tensor  # [C, H, W]
    h_encoder: Tensor  # [h]
    h_decoder: Tensor  # [h]
    x: Any = None  # Without read attention, of `prepared`: [4h, D], and backward, where x's gradient is wanted, [4h, 2D]


class Tape(NamedTuple):
    """What the forward pass leaves for the backward pass. Products' operands are in their dtype, states in float32."""

    canvas: Tensor  # [B, C, H, W], the last one
    kl: Tensor  # [T, B]
    latent: Tensor  # [T, B, 2Z]: mu, log sigma
    head: Tensor  # [T + 1, B, columns of the head]
    canvases: Tensor  # [T, B, C, H, W], those before the last one; one slot where they are rebuilt
    encoder_in: Tensor  # [T + 1, B, 2R + h + K + h]
    decoder_in: Tensor  # [T + 1, B, Z + K + h]
    encoder_gates: Tensor  # [T, B, 4h], activated: i, f, g, o
    decoder_gates: Tensor
    encoder_c: Tensor  # [T + 1, B, h]
    decoder_c: Tensor


#: `Pieces.new_buffers`, or another way to them.
NewBuffers = Callable[[Tensor, Sequence[tuple[tuple[int, ...], torch.dtype]]], list[Tensor]]


#: Of a tape the results, which every caller keeps for as long as it likes.
RESULTS = ("canvas", "kl", "latent")


def tape_form(
    shape: Shape, state: torch.dtype, dtype: torch.dtype, keep: bool, keep_canvases: bool, infers: bool
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Sizes and dtypes of a tape's buffers. `state`: the dtype of states; without `keep` two slots serve all glimpses."""
    s, t = shape, shape.glimpses
    steps, one_more = (t, t + 1) if keep else (1, 2)
    encodes, infer = one_more if infers else 0, t if infers else 0
    return {
        "canvas": (s.image, state),
        "kl": ((infer, s.batch), state),
        "latent": ((infer, s.batch, 2 * s.latent), state),
        "head": ((one_more, s.batch, head_columns(s, infers)), state),
        "canvases": ((t if keep_canvases else 1, *s.image), state),
        "encoder_in": ((encodes, s.batch, sum(s.encoder_columns)), dtype),
        "decoder_in": ((one_more, s.batch, sum(s.decoder_columns)), dtype),
        "encoder_gates": ((steps if infers else 0, s.batch, 4 * s.hidden), dtype),
        "decoder_gates": ((steps, s.batch, 4 * s.hidden), dtype),
        "encoder_c": ((encodes, s.batch, s.hidden), state),
        "decoder_c": ((one_more, s.batch, s.hidden), state),
    }


def make_tape(
    shape: Shape, like: Tensor, dtype: torch.dtype, keep: bool, keep_canvases: bool, infers: bool, new: NewBuffers
) -> Tape:
    """Empty buffers. `like` gives device and dtype of states; the rest is `tape_form`'s."""
    form = tape_form(shape, like.dtype, dtype, keep, keep_canvases, infers)
    results = {name: form.pop(name) for name in RESULTS}
    return Tape(
        **dict(zip(results, plain_buffers(like, list(results.values())), strict=True)),
        **dict(zip(form, new(like, list(form.values())), strict=True)),
    )


def head_columns(s: Shape, infers: bool) -> int:
    return s.patch_numel + (5 if s.write_size else 0) + (5 if s.read_size and infers else 0)


def prepared(pieces: Pieces, weights: Weights, s: Shape, infers: bool, backward: bool, multiplies_x: bool) -> Weights:
    """Each matrix as the backend's products take it in that pass. When generating nothing is encoded. multiplies_x: whether
    x is multiplied, or backward has a gradient."""
    roles = {"decoder": "cell", "head": "linear", **({"encoder": "cell", "latent": "latent"} if infers else {})}
    if infers and s.x_numel:
        inputs, state = weights.encoder
        # Backward those of x^ as well, since x is in both.
        of_x = inputs[:, : 2 * s.x_numel if backward else s.x_numel]
        weights = weights._replace(encoder=(inputs[:, s.x_numel :], state), x=(of_x,))
        if multiplies_x:
            roles["x"] = "linear"
    return weights._replace(**{name: pieces.prepared(getattr(weights, name), role, backward) for name, role in roles.items()})


def _at(slots: Sequence[Tensor], t: int) -> Tensor:
    return slots[t % len(slots)]


def forward(
    pieces: Pieces, x: Tensor | None, noise: Tensor, y: Tensor | None, weights: Weights, shape: Shape, tape: Tape
) -> None:
    """All glimpses, into the tape. With x None the model generates: noise itself is the latent sample (13).

    y [B, K]: the class of each image, as zeros and a one; None for an unconditional model.
    """
    w, s = weights, shape
    dec_h, enc_h = slice(s.latent + s.classes, None), slice(s.read_numel + s.hidden + s.classes, None)
    enc_dec_h = slice(s.read_numel, s.read_numel + s.hidden)
    if y is not None:
        tape.decoder_in[:, :, s.latent : s.latent + s.classes] = y
        tape.encoder_in[:, :, enc_dec_h.stop : enc_h.start] = y
    # Every slot's view is made once, all of a buffer together: one by one they take longer than small products.
    canvases, heads, latents = tape.canvases.unbind(), tape.head.unbind(), tape.latent.unbind()
    z, h_decoder = (tape.decoder_in[..., columns].unbind() for columns in (slice(s.latent), dec_h))
    r, h_decoder_again, h_encoder = (tape.encoder_in[..., c].unbind() for c in (slice(s.read_numel), enc_dec_h, enc_h))
    decoder_in, decoder_gates, decoder_c = (b.unbind() for b in (tape.decoder_in, tape.decoder_gates, tape.decoder_c))
    encoder_in, encoder_gates, encoder_c = (b.unbind() for b in (tape.encoder_in, tape.encoder_gates, tape.encoder_c))
    noises, parts = noise.unbind(), 1 if x is None else pieces.latent_parts(s, tape.decoder_in.dtype)
    kl_parts = tape.kl if parts == 1 else tape.kl.new_empty(s.glimpses, parts, s.batch)
    kl = kl_parts.unbind()
    encoder_bias = w.encoder_bias
    h_decoder[0].copy_(w.h_decoder)
    torch._foreach_zero_([decoder_c[0], *encoder_c[:1]])
    canvases[0].copy_(w.canvas)
    if x is not None:
        h_decoder_again[0].copy_(w.h_decoder)
        h_encoder[0].copy_(w.h_encoder)
        # Before anything is drawn the first decoder state places the first read.
        pieces.linear(h_decoder[0], w.head, w.head_bias, heads[0])
        r[-1].zero_()
        if s.x_numel:
            encoder_bias = _with_x(pieces, x, w, s, tape)
    else:
        heads[0].zero_()
    # What no glimpse fills is zero all the same: the tape is a result, and holds no uninitialised memory.
    z[-1].zero_()
    for t in range(s.glimpses):
        head, own_r = _at(heads, t) if x is not None or t else None, None if x is None else _at(r, t)
        pieces.canvas(head, _at(canvases, t - 1), _at(canvases, t), x, own_r, s, writes=t > 0)
        h_outs = [_at(h_decoder, t + 1)]
        if x is not None:
            c, c_new, h = _at(encoder_c, t), _at(encoder_c, t + 1), _at(h_encoder, t + 1)
            pieces.cell(_at(encoder_in, t), w.encoder, encoder_bias, c, _at(encoder_gates, t), c_new, [h])
            pieces.latent(h, w.latent, w.latent_bias, noises[t], latents[t], _at(z, t), kl[t])
            h_outs.append(_at(h_decoder_again, t + 1))
        else:
            _at(z, t).copy_(noises[t])
        c, c_new = _at(decoder_c, t), _at(decoder_c, t + 1)
        pieces.cell(_at(decoder_in, t), w.decoder, w.decoder_bias, c, _at(decoder_gates, t), c_new, h_outs)
        pieces.linear(h_outs[0], w.head, w.head_bias, _at(heads, t + 1))
    pieces.canvas(_at(heads, s.glimpses), _at(canvases, s.glimpses - 1), tape.canvas, None, None, s, writes=True)
    if parts > 1:
        torch.sum(kl_parts, 1, out=tape.kl)


def _with_x(pieces: Pieces, x: Tensor, w: Weights, s: Shape, tape: Tape) -> Tensor:
    """The encoder's bias and what x adds to it, [B, 4h]: the same at every glimpse."""
    bias = tape.encoder_c.new_empty(s.batch, 4 * s.hidden)
    pieces.linear(x.flatten(1).to(tape.encoder_in.dtype), w.x, w.encoder_bias, bias)
    return bias
