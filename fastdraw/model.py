"""`fastdraw.DRAW`: the reference's weights and results, computed by the operators."""

from __future__ import annotations

from torch import Tensor

from fastdraw import dispatch, layers, reference
from fastdraw.config import DRAWConfig
from fastdraw.ops import lstm_step, read, write
from fastdraw.ops.recurrence import recurrence
from fastdraw.reference import Operators
from fastdraw.sharing import Pretrained
from fastdraw.state_dict import CheckedStateDict


class DRAW(Pretrained, CheckedStateDict, reference.DRAW):
    """DRAW, a recurrent attention model that draws images (Gregor et al. 2015, arXiv 1502.04623).

        model = fastdraw.DRAW((1, 28, 28), glimpses=64, hidden_size=256, latent_size=100, read_size=2, write_size=5)
        out = model(x)
        out.loss.backward()

    image_shape            (C, H, W) of the images, in pixels
    glimpses               T, steps in which an image is read and drawn
    hidden_size            h, units of each LSTM
    latent_size            Z, latent dimensions per glimpse
    read_size, write_size  N, filters along each side of the window; None: no attention there (equations 17, 18)
    canvas_memory          "keep": every canvas is kept for the backward pass; "rebuild": each is rebuilt from the next one
                           there, so that memory does not grow with T times pixels, at the cost of another write each
    num_classes            of a class-conditional model: encoder and decoder are given the class of each image as well
    device, dtype          of the new weights, as torch's own modules take them

    `DRAW.from_config(fastdraw.presets["mnist"])` builds the paper's models. Raises TypeError or ValueError, naming the
    argument, for anything but whole numbers of at least 1.

    model(x, noise=None, labels=None) -> DRAWOutput(loss, reconstruction, kl, canvas); see `DRAW.forward`
    model.sample(n, noise=None, return_trajectory=False, labels=None) -> images [n, C, H, W] in [0, 1]
    model.reconstruct(x, noise=None, return_trajectory=False, labels=None) -> images [B, C, H, W] in [0, 1]
        generator=, of all three, draws noise (and classes) in place of torch's default one; glimpses=T takes so many in place
        of the model's own number, and noise is [T, B, Z] then.
    model.save_pretrained(folder), DRAW.from_pretrained(folder or "user/model")
        model.safetensors and config.json, as the Hugging Face hub names them.

    Weights and states are float32 (or float64, after .double()). Under torch.autocast the matrix products run in autocast's
    dtype, and in the weights' own after .bfloat16() or .half(); states, canvas and KL stay
    float32. Nothing is kept on the module between calls.

    Layers are modules: one with hooks, an adapter, a subclass or pruning in its place computes and is called once a glimpse,
    which is slower; a warning says so once, names it and the way back. Parametrised weights (torch.nn.utils.parametrize) are
    computed once a call and stay fast. What is no such layer raises TypeError or ValueError by name.
    On a CPU the large buffers of a step are kept for the next one, as torch does on CUDA.
    """

    config_type = DRAWConfig
    config: DRAWConfig

    operators = Operators(read, write, lstm_step)

    def recurrence(
        self, x: Tensor | None, noise: Tensor, return_trajectory: bool = False, labels: Tensor | None = None
    ) -> reference.Recurrence:
        """All glimpses, on the backend in force, by `fastdraw.ops.recurrence`; where a layer is more than its weights, one
        after the other through the layers."""
        if dispatch.current() != "reference":
            if self._forward_pre_hooks:
                layers.refresh(self)
            whole = recurrence(self, x, noise, return_trajectory, labels)
            if whole is not None:
                return whole
            layers.tell(self)
        return super().recurrence(x, noise, return_trajectory, labels)
