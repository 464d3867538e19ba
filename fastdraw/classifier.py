"""`fastdraw.DRAWClassifier`: the reference's weights and results, computed by one operator."""

from __future__ import annotations

from torch import Tensor

from fastdraw import dispatch, layers, reference
from fastdraw.config import ClassifierConfig
from fastdraw.ops import lstm_step, read, write
from fastdraw.ops.classification import classification
from fastdraw.reference import Operators
from fastdraw.sharing import Pretrained
from fastdraw.state_dict import CheckedStateDict


class DRAWClassifier(Pretrained, CheckedStateDict, reference.DRAWClassifier):
    """DRAW's attention as a classifier (section 4.1 of the paper): an LSTM takes T glimpses of an image, then tells its class.

        model = fastdraw.DRAWClassifier((1, 100, 100), glimpses=8, hidden_size=256, read_size=12, num_classes=10)
        out = model(x, labels)
        out.loss.backward()

    image_shape  (C, H, W) of the images, in pixels
    glimpses     T, reads before the class is told
    hidden_size  h, units of the LSTM
    read_size    N, filters along each side of the window; the LSTM's own last state places each window (equation 21)
    num_classes  classes told apart
    device, dtype  of the new weights, as torch's own modules take them

    `DRAWClassifier.from_config(fastdraw.classifier_presets["cluttered-mnist"])` builds the paper's. Raises TypeError or
    ValueError, naming the argument, for anything but whole numbers of at least 1.

    model(x, labels=None) -> ClassifierOutput(loss, logits); see `DRAWClassifier.forward`
        glimpses=, of this and the next two, in place of the model's own number.
    model.predict(x) -> the class [B] of the largest logit, without gradient
    model.attend(x) -> (logits, Window), without gradient: where each glimpse looked
    model.save_pretrained(folder), DRAWClassifier.from_pretrained(folder or "user/model")

    Weights and states are float32 (or float64, after .double()). Under torch.autocast the matrix products run in autocast's
    dtype, and in the weights' own after .bfloat16() or .half(); reads, states and logits stay
    float32. Nothing is kept on the module between calls. Layers that are more than their weights: as `fastdraw.DRAW` says.
    """

    config_type = ClassifierConfig
    config: ClassifierConfig

    operators = Operators(read, write, lstm_step)

    def recurrence(self, x: Tensor, return_params: bool = False, glimpses: int | None = None) -> tuple[Tensor, Tensor | None]:
        """All glimpses, on the backend in force, by `fastdraw.ops.classification`; where a layer is more than its weights, one
        after the other through the layers."""
        if dispatch.current() != "reference":
            if self._forward_pre_hooks:
                layers.refresh(self)
            whole = classification(self, x, return_params, glimpses)
            if whole is not None:
                return whole
            layers.tell(self)
        return super().recurrence(x, return_params, glimpses)
