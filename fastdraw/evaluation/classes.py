"""The error of a classifier, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastdraw import reference
from fastdraw.checks import check_size, expected
from fastdraw.classifier import DRAWClassifier
from fastdraw.evaluation.mean import Mean
from fastdraw.runs.held_out import check_held_out, held_out
from fastdraw.runs.parallel import ALONE, Processes, in_order


@dataclass(frozen=True)
class ClassErrors:
    """error: percent of `images` images told wrongly. cross_entropy: nats per image.

    confusion[a][b]: images of class a that were told as class b. by_class: error of each class, None where it has no images.
    """

    error: Mean
    cross_entropy: Mean
    confusion: list[list[int]]
    by_class: list[Mean | None]
    images: int


@torch.inference_mode()
def class_errors(
    model: DRAWClassifier,
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    seed: int = 0,
    binarize: bool = False,
    autocast: torch.dtype | None = None,
    between: Callable[[int], None] = lambda done: None,
    together: Processes = ALONE,
) -> ClassErrors:
    """Compares the model's classes of `images` (uint8 [n, C, H, W], n at least 1) with `labels` [n], int64.

    binarize: pixels are drawn as 0 or 1, the same at every evaluation with this seed and batch_size. `between` is called
    before each batch with the number of images that are done; what it raises ends the evaluation. together: processes that
    share the batches; each of them is given the whole result, the same as one process's.

    Raises ValueError or TypeError for another model, images or labels of another shape or dtype, and a batch_size below 1.
    """
    if labels is None:
        raise expected("labels", "class numbers", labels, TypeError)
    check_held_out(reference.DRAWClassifier, model, images, labels)
    batch_size = check_size("batch_size", batch_size)
    classes = model.config.num_classes
    device = model.initial_hidden.device

    def parts() -> Iterator[tuple[Tensor, ...]]:
        done = 0
        for _, x, known in held_out(images, batch_size, seed, binarize, device, labels, together):
            between(done)
            done += len(x)
            with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
                logits = model(x.to(model.initial_hidden.dtype)).logits
            yield cross_entropy(logits.double(), known["labels"], reduction="none"), logits.argmax(1)

    # In memory got before, as in bound.py.
    nats = torch.empty(len(images), dtype=torch.float64, device=device)
    told = torch.empty(len(images), dtype=torch.int64, device=device)
    done = 0
    for some, these in in_order(together, parts()):
        nats[done : done + len(some)], told[done : done + len(some)] = some.to(device), these.to(device)
        done += len(some)
    pairs = labels.to(device) * classes + told
    confusion = pairs.bincount(minlength=classes**2).view(classes, classes)
    right, each = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    return ClassErrors(
        error=Mean.share(len(images) - sum(right), len(images)),
        cross_entropy=Mean.of(nats),
        confusion=confusion.tolist(),
        by_class=[Mean.share(n - good, n) if n else None for good, n in zip(right, each, strict=True)],
        images=len(images),
    )
