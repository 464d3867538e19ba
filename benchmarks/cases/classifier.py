"""The case of the classifier: a training step with the paper's sizes, against the reference and against nn.LSTMCell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends
from fastdraw import ClassifierConfig, reference
from fastdraw.profile import cost
from fastdraw.profile.cases import Case, training_case
from fastdraw.profile.models import Problem
from fastdraw.profile.timing import Variant


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
    problem = Problem(config, batch, DEVICE)

    def variant(name: str, kind: type[reference.DRAWClassifier], half: bool = False, backend: str | None = None) -> Variant:
        step = problem.step(kind.from_config(config), torch.bfloat16 if half else None)
        full = name + (", bfloat16" if half else "")
        return Variant(full, lambda _: step(), backend, dtype=torch.bfloat16 if half else torch.float32)

    own, plain = fastdraw.DRAWClassifier, reference.DRAWClassifier
    first, *others = fastdraw_backends()
    variants = [
        *(variant(f"fastdraw {first}", own, half, first) for half in (False, True)),
        *(variant(f"fastdraw {backend}", own, backend=backend) for backend in others),
        *(variant("reference", plain, half) for half in (False, True)),
        variant("nn.LSTMCell", WithLSTMCell),
    ]
    least = cost.classifier(batch, config, problem.numel, 4)
    return training_case(problem, f"{title} {batch}, T={config.glimpses}", least, variants)
