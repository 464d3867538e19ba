"""KL per glimpse: how many nats each glimpse adds to the code of an image."""

from __future__ import annotations

import os

from torch import Tensor

from fastdraw.checks import check_tensor, expected
from fastdraw.installed import needs_extra
from fastdraw.text import printable
from fastdraw.view import picture


def save_kl(kl: Tensor, path: str | os.PathLike[str], title: str = "") -> None:
    """Writes a PNG: the mean over images of each glimpse's KL (equation 11), and how far images differ from it.

    kl: float [T, n], nats, as `model(x).kl`; T and n at least one.

    Writes and raises as `save_grid` does; needs matplotlib, which the extra `train` installs.
    """
    kl = check_tensor("kl", kl, "T", "n").detach().cpu().double()
    if 0 in kl.shape or not kl.isfinite().all():
        raise expected("kl", "finite nats of at least one glimpse and one image", kl)
    with needs_extra("plots"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    glimpses, mean = range(1, len(kl) + 1), kl.mean(1)
    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if kl.shape[1] > 1:
        low, high = kl.quantile(0.1, dim=1), kl.quantile(0.9, dim=1)
        # Each glimpse is as wide as its step: a run of one glimpse is seen too.
        axes.fill_between(glimpses, low, high, alpha=0.2, linewidth=0, label="80 % of the images")
    axes.plot(glimpses, mean, marker="o", markersize=3, label="mean")
    axes.set(xlabel="glimpse", ylabel="KL, nats", ylim=(0, None), xlim=(0.5, len(kl) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    images = f"{kl.shape[1]:,} images" if kl.shape[1] > 1 else "one image"
    text = f"{title + ': ' if title else ''}{mean.sum():.2f} nats in {len(kl)} glimpses, {images}"
    # A "$" in the name of somebody's folder begins no formula.
    axes.set_title(printable(text), fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    picture.save(path, lambda file: figure.savefig(file, format="png"))
