"""A report in lines of text."""

from __future__ import annotations

from fastdraw.evaluation.bound import Likelihood
from fastdraw.evaluation.classes import ClassErrors
from fastdraw.evaluation.of_run import Report

#: Glimpses in one line.
ACROSS = 4
#: A confusion table of more classes than these is not printed.
MOST_CLASSES = 20


def lines(report: Report) -> list[str]:
    """What was evaluated, then the figures, each +- its standard error."""
    weights = "moving average of the weights" if report.averaged else "weights"
    result, many = report.result, f"{report.result.images}"
    if result.images < report.split_images:
        many = f"{result.images} of the {report.split_images}"
    first = f"{report.checkpoint}: {weights} of step {report.step}, {many} {report.split} images of {report.data}"
    if result.images < report.split_images:
        first += f", drawn by seed {report.seed}"
    return [first, *(_likelihood(result) if isinstance(result, Likelihood) else _classes(result))]


def _likelihood(r: Likelihood) -> list[str]:
    out = [f"bound: {r.bound} nats per image = reconstruction {r.reconstruction} + KL {r.kl}"]
    if r.samples > 1:
        count = f"{r.effective_samples:.1f} of them count"
        out.append(f"importance-weighted, {r.samples} samples: {r.importance} nats per image ({count})")
    out.append("KL per glimpse, in nats:")
    width = len(str(len(r.kl_per_glimpse)))
    cells = [f"{t:>{width}}: {kl:.3f}" for t, kl in enumerate(r.kl_per_glimpse, 1)]
    return out + ["  " + "   ".join(cells[i : i + ACROSS]) for i in range(0, len(cells), ACROSS)]


def _classes(r: ClassErrors) -> list[str]:
    out = [f"error: {r.error} %; cross-entropy {r.cross_entropy:.4f} nats per image"]
    classes = len(r.confusion)
    if classes > MOST_CLASSES:
        return [*out, f"the confusion of {classes} classes is in --json"]
    width = max(len(str(max(map(max, r.confusion)))), len(str(classes)), 3) + 1
    out.append("class" + "".join(f"{b:>{width}}" for b in range(classes)) + "   told as; error in %")
    for a, (row, error) in enumerate(zip(r.confusion, r.by_class, strict=True)):
        out.append(f"{a:>5}" + "".join(f"{n:>{width}}" for n in row) + f"   {'no images' if error is None else error}")
    return out
