"""The case of the classifier: a training step with the paper's sizes, against the reference and against nn.LSTMCell."""

from __future__ import annotations

from torch import Tensor, nn

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends
from benchmarks.cases.models import eager_variants, variant
from fastdraw import ClassifierConfig, reference
from fastdraw.profile import cost
from fastdraw.profile.cases import Case, training_case
from fastdraw.profile.models import Problem


class WithLSTMCell(reference.DRAWClassifier):
    """The reference with nn.LSTMCell as it comes: what somebody writes who knows PyTorch well."""

    def recurrence(self, x: Tensor, return_params: bool = False, glimpses: int | None = None) -> tuple[Tensor, Tensor | None]:
        batch, cell = x.shape[0], self.lstm
        assert isinstance(cell, nn.LSTMCell)
        h, c = self.initial_hidden.expand(batch, -1), self.initial_hidden.new_zeros(batch, self.config.hidden_size)
        for _ in range(glimpses or self.config.glimpses):
            r = reference.read(x, self.read_attention(h), self.config.read_size)
            h, c = cell(r.flatten(1), (h, c))
        return self.output(h), None


def classifier_case(config: ClassifierConfig, title: str, batch: int) -> Case:
    """A training step without the optimiser, which is the same for all."""
    problem = Problem(config, batch, DEVICE)

    own = fastdraw.DRAWClassifier.from_config
    first, *others = fastdraw_backends()
    variants = [
        *(variant(problem, f"fastdraw {first}", own(config), half, first) for half in (False, True)),
        *(variant(problem, f"fastdraw {backend}", own(config), False, backend) for backend in others),
        *eager_variants(problem),
        variant(problem, "nn.LSTMCell", WithLSTMCell.from_config(config)),
    ]
    least = cost.classifier(batch, config, problem.numel, 4)
    return training_case(problem, f"{title} {batch}, T={config.glimpses}", least, variants)
