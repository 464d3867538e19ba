"""The reverse of the loop over glimpses (glimpses.py): gradients through time, and the weights' from all glimpses at once.

Without read attention the reverse of x's product is one product, too, of the gates' gradients summed over t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.ops.contract import Pieces, Shape
from fastdraw.ops.glimpses import Tape, Weights, head_columns


class WeightGradients(NamedTuple):
    """Those of Weights; an LSTM's in two matrices, as its weights are kept: of its inputs, and of its state."""

    encoder: tuple[Tensor, Tensor]
    encoder_bias: Tensor
    latent: Tensor
    latent_bias: Tensor
    decoder: tuple[Tensor, Tensor]
    decoder_bias: Tensor
    head: Tensor
    head_bias: Tensor
    canvas: Tensor
    h_encoder: Tensor
    h_decoder: Tensor


class Gradients(NamedTuple):
    x: Tensor | None
    noise: Tensor | None
    weights: WeightGradients


def _zeros_together(like: Tensor, *sizes: tuple[int, ...]) -> list[Tensor]:
    """Zeros of like's dtype and device, each in memory of its own; on CUDA one launch for all."""
    tensors = [like.new_empty(each) for each in sizes]
    torch._foreach_zero_(tensors)
    return tensors


def _zero_gradients(s: Shape, infers: bool, like: Tensor) -> WeightGradients:
    gates, hidden, columns = 4 * s.hidden, s.hidden, head_columns(s, infers)
    sizes: dict[str, tuple[int, ...]] = {
        "encoder_ih": (gates, s.x_numel + sum(s.encoder_columns[:-1])),
        "encoder_hh": (gates, hidden),
        "encoder_bias": (gates,),
        "latent": (2 * s.latent, hidden),
        "latent_bias": (2 * s.latent,),
        "decoder_ih": (gates, sum(s.decoder_columns[:-1])),
        "decoder_hh": (gates, hidden),
        "decoder_bias": (gates,),
        "head": (columns, hidden),
        "head_bias": (columns,),
        "canvas": s.image[1:],
        "h_encoder": (hidden,),
        "h_decoder": (hidden,),
    }
    made = dict(zip(sizes, _zeros_together(like, *sizes.values()), strict=True))
    encoder, decoder = ((made.pop(f"{name}_ih"), made.pop(f"{name}_hh")) for name in ("encoder", "decoder"))
    return WeightGradients(encoder=encoder, decoder=decoder, **made)


class Rows(NamedTuple):
    """Gradients of a chunk of glimpses, [chunk, B, columns] each, until they go into those of the weights."""

    encoder_gates: Tensor
    latent: Tensor
    decoder_gates: Tensor
    head: Tensor


def _add_chunk(
    pieces: Pieces, grads: WeightGradients, gates_of_x: Tensor | None, rows: Rows, tape: Tape, s: Shape, t: int, infers: bool
) -> None:
    """Adds to the weights' gradients, and to gates_of_x, what `rows` hold of the glimpses from t on."""
    n = min(len(rows.head), s.glimpses - t)
    steps, states = slice(t, t + n), slice(t + 1, t + 1 + n)
    encoder_gates, latent, decoder_gates, head = (grad[:n].flatten(0, 1) for grad in rows)
    h_decoder = tape.decoder_in[states, :, s.latent + s.classes :].flatten(0, 1)
    pieces.weight_gradient(decoder_gates, tape.decoder_in[steps].flatten(0, 1), grads.decoder, grads.decoder_bias)
    pieces.weight_gradient(head, h_decoder, [grads.head], grads.head_bias)
    if infers:
        h_encoder = tape.encoder_in[states, :, -s.hidden :].flatten(0, 1)
        weights = [grads.encoder[0][:, s.x_numel :], grads.encoder[1]]
        pieces.weight_gradient(encoder_gates, tape.encoder_in[steps].flatten(0, 1), weights, grads.encoder_bias)
        pieces.weight_gradient(latent, h_encoder, [grads.latent], grads.latent_bias)
        if gates_of_x is not None:
            gates_of_x.add_(rows.encoder_gates[:n].sum(0, dtype=gates_of_x.dtype))


def _through_x(
    pieces: Pieces, x: Tensor, gates: Tensor, w: Weights, s: Shape, grads: WeightGradients, grad_x: Tensor | None
) -> None:
    """The reverse of `_with_x`. gates [B, 4h]: of the encoder's gates, summed over glimpses, in the products' dtype."""
    of_x, of_bias = grads.encoder[0][:, : s.x_numel], torch.zeros_like(grads.encoder_bias)
    # The bias has had its gradient, chunk by chunk.
    pieces.weight_gradient(gates, x.flatten(1).to(gates.dtype), [of_x], of_bias)
    if grad_x is not None:
        through = gates.new_empty(s.batch, 2 * s.x_numel)
        pieces.input_backward(gates, w.x, through)
        for part in through.split(s.x_numel, 1):
            grad_x.add_(part.reshape(s.image))


class Through(NamedTuple):
    """Gradients on their way through time, of one glimpse: of the cells' inputs, and of the cells."""

    encoder_in: Tensor
    decoder_in: Tensor
    encoder_c: Tensor
    decoder_c: Tensor


def _nothing_through(tape: Tape, s: Shape, infers: bool) -> Through:
    """Zeros: nothing comes after the last glimpse."""
    inputs = (s.batch, sum(s.encoder_columns) if infers else 0), (s.batch, sum(s.decoder_columns))
    cells = _zeros_together(tape.canvas, *[(s.batch, s.hidden)] * 2)
    return Through(*_zeros_together(tape.decoder_in, *inputs), *cells)


def _first_read(
    pieces: Pieces,
    canvas: Tensor,
    x: Tensor | None,
    grad_r: Tensor,
    grad_canvas: Tensor,
    to_head: Tensor,
    grad_x: Tensor | None,
    tape: Tape,
    w: Weights,
    s: Shape,
    grads: WeightGradients,
) -> Tensor:
    """The reverse of the read before anything was written. Gives what comes from its window to the first decoder state."""
    pieces.canvas_backward(tape.head[0], canvas, x, grad_r, grad_canvas, to_head, grad_x, s, writes=False, rebuild=False)
    pieces.weight_gradient(to_head, tape.decoder_in[0, :, s.latent + s.classes :], [grads.head], grads.head_bias)
    through = tape.decoder_in.new_empty(s.batch, s.hidden)
    pieces.input_backward(to_head, w.head, through)
    return through


def backward(
    pieces: Pieces,
    grad_canvas: Tensor,
    grad_kl: Tensor,
    x: Tensor | None,
    noise: Tensor,
    weights: Weights,
    shape: Shape,
    tape: Tape,
    need_x: bool,
    need_noise: bool,
) -> Gradients:
    """The reverse of `forward`, glimpse by glimpse.

    Only input gradients run through time. A weight's gradient is a product over all rows of its layer's inputs; it is
    summed up in chunks of as many rows as the backend has it (or one glimpse), so that the gradients of gates need not have T
    slots.
    """
    w, s, infers = weights, shape, x is not None
    grads = _zero_gradients(s, infers, tape.canvas)
    grad_x = torch.zeros_like(x) if x is not None and need_x else None
    gates_of_x = tape.canvas.new_zeros(s.batch, 4 * s.hidden) if infers and s.x_numel else None
    read_grad_x = grad_x if gates_of_x is None else None
    grad_noise = torch.empty_like(noise) if need_noise else None
    grad_canvas = grad_canvas.clone(memory_format=torch.contiguous_format)
    rebuilt = tape.canvas.clone() if len(tape.canvases) < s.glimpses else None
    chunk = min(s.glimpses, max(1, pieces.chunk_rows(s, tape.decoder_in.dtype) // s.batch))
    buffers = (tape.encoder_gates, tape.latent, tape.decoder_gates, tape.head)
    rows = Rows._make(tape.decoder_in.new_empty(chunk, s.batch, like.shape[-1]) for like in buffers)
    through = _nothing_through(tape, s, infers)
    grad_r, through_encoder, _, grad_h_encoder = through.encoder_in.split(s.encoder_columns if infers else [0] * 4, 1)
    through_decoder = through.decoder_in[:, s.latent + s.classes :]
    heads, latents, noises, kl = tape.head.unbind(), tape.latent.unbind(), noise.unbind(), grad_kl.unbind()
    decoder_gates, decoder_c = tape.decoder_gates.unbind(), tape.decoder_c.unbind()
    encoder_gates, encoder_c = tape.encoder_gates.unbind(), tape.encoder_c.unbind()
    canvases = (*tape.canvases.unbind(), tape.canvas)
    to_encoder, to_latent, to_decoder, to_head = (buffer.unbind() for buffer in rows)
    for t in range(s.glimpses - 1, -1, -1):
        i, reads = t % chunk, infers and t + 1 < s.glimpses
        after = rebuilt if rebuilt is not None else canvases[t + 1]
        # fmt: off
        pieces.canvas_backward(
            heads[t + 1], after, x, grad_r if reads else None, grad_canvas, to_head[i], read_grad_x, s, writes=True,
            rebuild=rebuilt is not None,
        )
        pieces.cell_backward(
            to_head[i], w.head, [through_encoder, through_decoder] if infers else [through_decoder], decoder_gates[t],
            decoder_c[t], decoder_c[t + 1], through.decoder_c, to_decoder[i],
        )
        if infers:
            pieces.latent_backward(
                to_decoder[i], w.decoder, latents[t], noises[t], kl[t], through.decoder_in, to_latent[i],
                None if grad_noise is None else grad_noise[t],
            )
            pieces.cell_backward(
                to_latent[i], w.latent, [grad_h_encoder], encoder_gates[t], encoder_c[t], encoder_c[t + 1], through.encoder_c,
                to_encoder[i],
            )
            pieces.input_backward(to_encoder[i], w.encoder, through.encoder_in)
        else:
            pieces.input_backward(to_decoder[i], w.decoder, through.decoder_in)
            if grad_noise is not None:
                grad_noise[t] = through.decoder_in[:, : s.latent]
        # fmt: on
        if i == 0:
            _add_chunk(pieces, grads, gates_of_x, rows, tape, s, t, infers)
    parts = [through_decoder]
    if x is not None:
        canvas = rebuilt if rebuilt is not None else canvases[0]
        through_head = _first_read(pieces, canvas, x, grad_r, grad_canvas, to_head[0], read_grad_x, tape, w, s, grads)
        if gates_of_x is not None:
            _through_x(pieces, x, gates_of_x.to(tape.encoder_in.dtype), w, s, grads, grad_x)
        parts += [through_encoder, through_head]
        grads.h_encoder.copy_(grad_h_encoder.sum(0, dtype=grad_canvas.dtype))
    for part in parts:
        grads.h_decoder.add_(part.sum(0, dtype=grad_canvas.dtype))
    torch.sum(grad_canvas, 0, out=grads.canvas)
    return Gradients(grad_x, grad_noise, grads)
