"""The case of the classifier: a training step with the paper's sizes, against the reference and against nn.LSTMCell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends
from fastdraw import ClassifierConfig, reference
from fastdraw.profile import cost
from fastdraw.profile.cases import Case
from fastdraw.profile.models import STD, rounded, with_weights
from fastdraw.profile.shapes import Drawing
from fastdraw.profile.timing import Variant


class Problem:
    """Weights, images and labels that all variants share."""

    def __init__(self, config: ClassifierConfig, batch: int) -> None:
        torch.manual_seed(0)
        self.config, self.batch = config, batch
        yardstick = reference.DRAWClassifier.from_config(config)
        for parameter in yardstick.parameters():
            torch.nn.init.normal_(parameter, std=STD)
        self.state = yardstick.state_dict()
        self.numel = sum(parameter.numel() for parameter in yardstick.parameters() if parameter.dim() == 2)
        self.x = torch.rand(batch, *config.image_shape, device=DEVICE)
        self.labels = torch.randint(config.num_classes, (batch,), device=DEVICE)

    def step(
        self, kind: type[reference.DRAWClassifier], autocast: bool = False, rounding: float | None = None
    ) -> Callable[[int], list[Tensor]]:
        """Forward and backward. rounding: in float64, with weights moved by this share of themselves."""
        state, x = self.state, self.x
        if rounding is not None:
            state, x = rounded({name: tensor.double() for name, tensor in state.items()}, rounding), x.double()
        model = with_weights(kind.from_config(self.config).to(x.dtype), state, DEVICE)
        weights = list(model.parameters())

        def run(_: int) -> list[Tensor]:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
                out = model(x, self.labels)
            return [out.loss.detach(), out.logits.detach(), *torch.autograd.grad(out.loss, weights)]

        return run

    def exact(self, rounding: float = 0.0) -> list[Tensor]:
        return self.step(reference.DRAWClassifier, rounding=rounding)(0)

    def rivals(self, dtype: torch.dtype) -> list[list[Tensor]]:
        if dtype != torch.bfloat16:
            return []
        eager = self.step(reference.DRAWClassifier, autocast=True)(0)
        return [eager, *(self.exact(torch.finfo(dtype).eps / 2) for _ in range(3))]


class WithLSTMCell(reference.DRAWClassifier):
    """The reference with nn.LSTMCell as it comes: what somebody writes who knows PyTorch well."""

    def recurrence(self, x: Tensor, return_params: bool = False) -> tuple[Tensor, Tensor | None]:
        batch, cell = x.shape[0], self.lstm
        assert isinstance(cell, nn.LSTMCell)
        h, c = self.initial_hidden.expand(batch, -1), self.initial_hidden.new_zeros(batch, self.config.hidden_size)
        for _ in range(self.config.glimpses):
            r = reference.read(x, self.read_attention(h), self.config.read_size)
            h, c = cell(r.flatten(1), (h, c))
        return self.output(h), None


def classifier_case(config: ClassifierConfig, title: str, batch: int) -> Case:
    """A training step without the optimiser, which is the same for all."""
    problem = Problem(config, batch)
    first, *others = fastdraw_backends()
    variants = [
        Variant(
            f"fastdraw {backend}" + (", bfloat16" if autocast else ""),
            problem.step(fastdraw.DRAWClassifier, autocast),
            backend,
            dtype=torch.bfloat16 if autocast else torch.float32,
        )
        for backend, autocast in [(first, False), (first, True), *((backend, False) for backend in others)]
    ]
    variants += [
        Variant("reference", problem.step(reference.DRAWClassifier), dtype=torch.float32),
        Variant("reference, bfloat16", problem.step(reference.DRAWClassifier, autocast=True), dtype=torch.bfloat16),
        Variant("nn.LSTMCell", problem.step(WithLSTMCell), dtype=torch.float32),
    ]
    return Case(
        f"{title} {batch}, T={config.glimpses}",
        Drawing.measured,
        "float32",
        DEVICE,
        cost.classifier(batch, config, problem.numel, 4),
        variants,
        problem.exact,
        input_bytes=problem.x.nbytes,
        rivals=problem.rivals,
        batch=batch,
        glimpses=config.glimpses,
    )
