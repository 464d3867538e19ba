"""The specification of the paper's classifier (section 4.1).

One LSTM reads the image through a window that its own last state places; the last state of all tells the class:

    params_t = W_a h_{t-1} + b_a (21);  r_t = read(x, params_t) (27);  h_t = LSTM(h_{t-1}, r_t);  logits = W_o h_T + b_o
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastdraw import checks, layers
from fastdraw.calls import Calls
from fastdraw.config import ClassifierConfig
from fastdraw.outputs import Window, brief
from fastdraw.reference.operators import Operators, lstm_step, read, window, write

Model = TypeVar("Model", bound="DRAWClassifier")


class ClassifierOutput(NamedTuple):
    """loss: cross-entropy in nats per image, averaged over the batch, or None without labels. logits [B, num_classes]."""

    loss: Tensor | None
    logits: Tensor

    def __repr__(self) -> str:
        return brief(self)


class DRAWClassifier(nn.Module):
    """The classifier as the paper has it; `fastdraw.DRAWClassifier` has the same arguments, weights and results.

    Arguments are those of `fastdraw.ClassifierConfig`.
    """

    operators: ClassVar[Operators] = Operators(read, write, lstm_step)
    states: ClassVar[tuple[str, ...]] = ("initial_hidden",)

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 100, 100),
        glimpses: int = 8,
        hidden_size: int = 256,
        read_size: int = 12,
        num_classes: int = 10,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": checks.check_dtype(dtype)}
        self.config = config = ClassifierConfig(image_shape, glimpses, hidden_size, read_size, num_classes)
        self.lstm = nn.LSTMCell(config.read_numel, hidden_size, **made)
        self.read_attention = nn.Linear(hidden_size, 5, **made)
        self.output = nn.Linear(hidden_size, num_classes, **made)
        self.initial_hidden = nn.Parameter(torch.empty(hidden_size, **made))
        self.reset_parameters()

    @classmethod
    def from_config(cls: type[Model], config: ClassifierConfig, **more: Any) -> Model:
        """The model of a configuration; `more` are the arguments that it does not hold: device, dtype."""
        if not isinstance(config, ClassifierConfig):
            raise checks.expected("config", "a ClassifierConfig, as classifier_presets hold", config, TypeError)
        return cls(**config.to_dict(), **more)

    def extra_repr(self) -> str:
        return f"{self.config}, {sum(p.numel() for p in self.parameters()):,} parameters"

    def reset_parameters(self) -> None:
        """Weights that training starts well from: states of ordinary size (variance 1 / inputs), biases and the initial state
        zero. So the first window is in the middle and spans the image, and those that follow stay near to it.

        Its sigma is half of what lies between two filters, so that they overlap and leave no pixel out: where they are
        narrower than that, a digit of a few filters' size is mostly missed, and gradients to windows are mostly noise.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() != 2:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.03 if "attention" in name else parameter.shape[1] ** -0.5)
        side, size = max(self.config.image_shape[1:]), self.config.read_size
        apart = (side - 1) / (size - 1) if size > 1 else side
        nn.init.constant_(self.read_attention.bias[2], 2 * math.log(max(apart, 1.0) / 2))

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, labels: Tensor | None = None, *, glimpses: int | None = None) -> ClassifierOutput: ...

    def forward(self, x: Tensor, labels: Tensor | None = None, *, glimpses: int | None = None) -> ClassifierOutput:
        """Logits of a batch, and their loss where labels are given.

        x       [B, C, H, W] in [0, 1]. NaN, infinity and values outside are refused where looking does not wait for the
                device: on the CPU; everywhere with FASTDRAW_CHECK_VALUES=1, nowhere with 0.
        labels  [B], int64, from 0 to num_classes - 1; values are checked where those of x are.
        glimpses  T of this call, at least 1; None: the model's own.

        Gives ClassifierOutput: loss, a scalar, the mean cross-entropy in nats per image, or None without labels; logits
        [B, num_classes].

        Raises TypeError or ValueError, naming the argument, for other shapes, devices, values or labels.
        """
        x = self._check_images(x)
        if labels is not None:
            checks.check_labels(labels, x.shape[0], self.config.num_classes, self.initial_hidden)
        logits, _ = self.recurrence(x, glimpses=glimpses)
        return ClassifierOutput(None if labels is None else cross_entropy(logits, labels), logits)

    def predict(self, x: Tensor, *, glimpses: int | None = None) -> Tensor:
        """The most probable class of each image, after so many glimpses (None: the model's own): x [B, C, H, W] in [0, 1] ->
        [B], int64, without a graph."""
        with torch.no_grad():
            return self.recurrence(self._check_images(x), glimpses=glimpses)[0].argmax(1)

    def attend(self, x: Tensor, *, glimpses: int | None = None) -> tuple[Tensor, Window]:
        """Where the model looks: x [B, C, H, W] in [0, 1] -> logits [B, num_classes] and the windows of all glimpses (None: as
        many as are the model's own), in pixels, fields [T, B]; without a graph."""
        with torch.no_grad():
            logits, params = self.recurrence(self._check_images(x), return_params=True, glimpses=glimpses)
        assert params is not None
        return logits, window(params, self.config.read_size, self.config.image_shape[1:])

    def recurrence(self, x: Tensor, return_params: bool = False, glimpses: int | None = None) -> tuple[Tensor, Tensor | None]:
        """All glimpses, the model's own number where None: logits [B, num_classes], and the params [T, B, 5] of every window
        where they are asked for."""
        batch, glimpses = x.shape[0], checks.check_glimpses(glimpses, self.config.glimpses)
        layers.refresh(self)
        call = Calls(self, self.layer_kinds(), self.states, self.operators.lstm_step)
        x, h = x.to(call.state), self.initial_hidden.to(call.state).expand(batch, -1)
        c = torch.zeros_like(h)
        all_params: list[Tensor] = []
        with layers.once(self):
            for _ in range(glimpses):
                all_params.append(call.linear("read_attention", h, 5))  # (21)
                r = self.operators.read(x, all_params[-1], self.config.read_size).flatten(1)  # (27)
                h, c = call.lstm("lstm", r, (h, c))
            logits = call.linear("output", h, self.config.num_classes)
        return logits, torch.stack(all_params) if return_params else None

    def layer_kinds(self) -> dict[str, type[nn.Module]]:
        """The layers by name, as what they are made."""
        return {"lstm": nn.LSTMCell, "read_attention": nn.Linear, "output": nn.Linear}

    def _check_images(self, x: Tensor) -> Tensor:
        checks.check_tensor("x", x, "B", *self.config.image_shape)
        checks.check_same("device", "the model's weights", self.initial_hidden, "x", x)
        checks.check_unit_interval("x", x)
        return x.to(self.initial_hidden.dtype)
