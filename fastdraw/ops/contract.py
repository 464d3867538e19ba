"""What a backend is: the functions that its modules have, with the shapes of what goes in and out.

Every backend has two modules: the operators' kernels (`Backend`) and the pieces of one glimpse (`Pieces`), which the loops of
glimpses.py and classification.py are made of. Letters as in the paper: B images, C channels, H x W pixels, N filters a side,
K windows of an image, T glimpses, h hidden units, Z latents. Whatever comes has been checked, lies in memory on one device,
and is not empty. kernels/aten.py and kernels/aten_pieces.py are the plainest modules, written for reading.

Nothing is imported here but torch, so that kernels may.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of windows, filters, sums and states: float64 stays, everything else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def patch_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of what is read of an image: its own; float32 of pixels of one byte."""
    return torch.float32 if dtype == torch.uint8 else dtype


class Shape(NamedTuple):
    """Sizes of one call of DRAW. read_size and write_size are 0 without attention there."""

    glimpses: int
    batch: int
    channels: int
    height: int
    width: int
    hidden: int
    latent: int
    read_size: int
    write_size: int
    classes: int = 0

    @property
    def image(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.height, self.width

    @property
    def x_numel(self) -> int:
        """How many of the encoder's columns multiply x itself, once for all glimpses: none with read attention."""
        return 0 if self.read_size else self.channels * self.height * self.width

    @property
    def read_numel(self) -> int:
        """Columns of r: 2R, one read of x and x^; without attention those of x^ alone."""
        return self.x_numel or 2 * self.channels * self.read_size**2

    @property
    def encoder_columns(self) -> list[int]:
        """Of r, h_dec, y and h_enc."""
        return [self.read_numel, self.hidden, self.classes, self.hidden]

    @property
    def decoder_columns(self) -> list[int]:
        """Of z, y and h_dec."""
        return [self.latent, self.classes, self.hidden]

    @property
    def patch_numel(self) -> int:
        return self.channels * (self.write_size**2 if self.write_size else self.height * self.width)


class Backend(Protocol):
    """The operators' kernels. Params are [B, P], or [B, K, P] with patches [B, K, C, N_y, N_x]; P is 5, or 7 with a sigma and
    a stride of their own for x and y. size: (N_y, N_x). Images have any strides, and those that `read` and `read_backward` are
    given may be uint8; all else is contiguous. power: of gamma, 1 for a read and -1 for a write. Gradients are in the dtype of
    what they belong to; an image of uint8 has none."""

    def unavailable(self) -> str | None:
        """None where these kernels can run, otherwise one sentence saying why not."""

    def filterbank(self, params: Tensor, size: Sequence[int], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """params [B, P] -> F_Y [B, N_y, H], F_X [B, N_x, W], gamma [B], all wide."""

    def filterbank_backward(
        self, grad_y: Tensor, grad_x: Tensor, grad_gamma: Tensor, params: Tensor, size: Sequence[int], height: int, width: int
    ) -> Tensor:
        """-> grad_params [B, P]."""

    def keeps(self, image: Tensor, params: Tensor, size: Sequence[int]) -> Tensor | None:
        """Memory in which `read` may leave what makes its gradient to params cheap; None where a backend has no use for it."""

    def read(self, image: Tensor, params: Tensor, size: Sequence[int], power: int, kept: Tensor | None = None) -> Tensor:
        """image [B, C, H, W] -> patch gamma^power F_Y image F_X^T, [B, C, N_y, N_x] or [B, K, C, N_y, N_x]. kept: what `keeps`
        gave for this image, params and size, to be filled. The patch is in the image's dtype, float32 of uint8."""

    def read_backward(
        self,
        grad_patch: Tensor,
        image: Tensor,
        params: Tensor,
        power: int,
        need_image: bool,
        form: torch.memory_format = torch.contiguous_format,
        kept: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """-> grad_image [B, C, H, W], where it is wanted, lying in memory as `form` says, and grad_params. kept: as `read`
        filled it."""

    def write(
        self,
        patch: Tensor,
        params: Tensor,
        height: int,
        width: int,
        power: int,
        form: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """patch -> image gamma^power F_Y^T patch F_X, [B, C, H, W], lying in memory as `form` says; of several windows their
        sum, in their order, wide, and rounded once."""

    def write_backward(
        self, grad_image: Tensor, patch: Tensor, params: Tensor, power: int, need_patch: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """-> grad_patch, where it is wanted, and grad_params; grad_image [B, C, H, W] has any strides."""

    def lstm_step(
        self, x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, I], h and c [B, h] -> h', c' [B, h], and gates [B, 4h], activated, in the order i, f, g, o. c, c' and gates
        are wide, all else is of one dtype."""

    def lstm_step_backward(
        self,
        grad_h: Tensor | None,
        grad_c: Tensor | None,
        gates: Tensor,
        c: Tensor,
        c_new: Tensor,
        x: Tensor,
        h: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """-> gradients to x, h, c, weight_ih, weight_hh, and to either bias [4h], which have the same."""


class Pieces(Protocol):
    """The pieces of one glimpse. Outputs are given as tensors to fill. Operands of products share a dtype; states, canvases,
    latents and the head's outputs are wide. Views may be strided in their rows; columns are contiguous.

    weight: what `prepared` made of a matrix [M, K] for this pass, forward for `cell`, `latent` and `linear`, backward for
    their gradients.
    """

    def prepared(self, parts: Sequence[Tensor], role: str, backward: bool) -> Any:
        """A weight as the pieces take it, made once for all glimpses. parts: one matrix, or an LSTM's two, for its inputs and
        for its state; role: what follows the product forward, "cell", "latent" or "linear"; backward: for pieces that take
        gradients."""

    def new_buffers(self, like: Tensor, wanted: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
        """Tensors of these sizes and dtypes on the device of `like`, not initialised, for the tape."""

    def chunk_rows(self, s: Shape, dtype: torch.dtype) -> int:
        """How many rows of gradients, glimpses times images, go into the weights' gradients at once."""

    def latent_parts(self, s: Shape, dtype: torch.dtype) -> int:
        """In how many parts `latent` gives each image's KL where it is handed kl [parts, B], which the loop sums up at its
        end."""

    def cell(
        self, inputs: Tensor, weight: Any, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]
    ) -> None:
        """gates [B, 4h] = activated inputs [B, K] weight^T + bias; c_new [B, h]; h [B, h] into every one of h_outs, of which
        there are one or two. bias: [4h], or [B, 4h] and wide, where every image has its own."""

    def latent(self, h: Tensor, weight: Any, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> None:
        """out [B, 2Z] = mu, log sigma = h weight^T + bias;  z = mu + sigma noise;  kl [B], nats (equations 1, 2, 6, 11)."""

    def linear(self, h: Tensor, weight: Any, bias: Tensor, out: Tensor) -> None:
        """out [B, P] = h weight^T + bias: of DRAW's head the patch, params of the write, params of the next read."""

    def canvas(
        self, head: Tensor | None, before: Tensor, canvas: Tensor, x: Tensor | None, r: Tensor | None, s: Shape, writes: bool
    ) -> None:
        """canvas = before + write (8), where `writes`;  r = read of x and x^ = x - sigmoid(canvas) (3, 4), and without
        attention x^ alone, where there is an x. `before` and `canvas` may be the same tensor. Without `writes` before is
        canvas. Without `head`, nothing."""

    def cell_backward(
        self,
        grad_out: Tensor,
        weight: Any,
        others: list[Tensor],
        gates: Tensor,
        c: Tensor,
        c_new: Tensor,
        grad_c: Tensor,
        grad_gates: Tensor,
    ) -> None:
        """grad_gates [B, 4h], before activation, from grad_h = grad_out weight + the sum of others, of which there are two at
        most; grad_c is that of c_new, and becomes that of c. weight: that of what h goes to."""

    def latent_backward(
        self,
        grad_gates: Tensor,
        weight: Any,
        latent: Tensor,
        noise: Tensor,
        grad_kl: Tensor,
        grad_inputs: Tensor,
        grad_latent: Tensor,
        grad_noise: Tensor | None,
    ) -> None:
        """grad_inputs [B, Z + h] = grad_gates weight; its first Z columns go on to grad_latent [B, 2Z] and grad_noise."""

    def input_backward(self, grad_out: Tensor, weight: Any, grad_inputs: Tensor) -> None:
        """grad_inputs [B, K] = grad_out weight."""

    def canvas_backward(
        self,
        head: Tensor,
        canvas: Tensor,
        x: Tensor | None,
        grad_r: Tensor | None,
        grad_canvas: Tensor,
        grad_head: Tensor,
        grad_x: Tensor | None,
        s: Shape,
        writes: bool,
        rebuild: bool,
    ) -> None:
        """The reverse of `canvas`: grad_canvas [B, C, H, W] takes up the read's part in place (where there was a read, and so
        a grad_r), grad_head [B, P] is filled, grad_x is added to: None without read attention, where the loop has it from all
        glimpses at once. With `rebuild` the canvas becomes the one before."""

    def weight_gradient(self, grad_out: Tensor, inputs: Tensor, weights: Sequence[Tensor], bias: Tensor) -> None:
        """weight [M, K] += grad_out^T inputs and bias [M] += the sum of grad_out's rows, both wide. weights: the weight's
        parts as in `prepared`, which share out its columns between them."""


def plain_buffers(like: Tensor, wanted: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    """`Pieces.new_buffers` from torch's own allocator."""
    return [like.new_empty(sizes, dtype=dtype) for sizes, dtype in wanted]
