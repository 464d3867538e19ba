"""The roofline: operations per second against operations per byte, under the two ceilings that were measured."""

from __future__ import annotations

import os
from typing import Any

from fastdraw.installed import needs_extra
from fastdraw.profile.figures import count_text
from fastdraw.view import picture

_MARKERS = {"read": "o", "write": "s", "lstm": "D", "draw": "^"}


def save(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a PNG: fastdraw's own row of every case filled, the peers' hollow above the same operations per byte."""
    with needs_extra("plots"):
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    cases = report["cases"]
    figure = Figure(figsize=(9, 6.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    intensity = [c["operations"] / c["bytes"] for c in cases]
    low, high = min(intensity) / 3, max(intensity) * 3
    copies = sorted({c["copy_bytes_per_second"] for c in cases})
    flops = max(c["operations_per_second"] for c in cases)
    low, high = min(low, flops / copies[-1] / 3), max(high, flops / copies[0] * 2)
    for rate, style in ((copies[0], "-"), (copies[-1], "--"))[: 1 if copies[-1] < 1.05 * copies[0] else 2]:
        which = "" if len(copies) == 1 else (" of the largest case" if style == "-" else " in the cache")
        which = f"copy{which}: {count_text(rate, 'B/s')}"
        axes.plot([low, flops / rate], [low * rate * 1e-9, flops * 1e-9], f"k{style}", lw=1.3, label=which)
    axes.plot([flops / copies[-1], high], [flops * 1e-9] * 2, "k-", lw=1.3)
    axes.text(high, flops * 1e-9, f"products: {count_text(flops, 'FLOP/s')} ", ha="right", va="bottom", fontsize=8)
    for number, (case, x) in enumerate(zip(cases, intensity, strict=True)):
        colour = f"C{number % 10}"
        measured = [r for r in case["rows"] if r["median"] is not None]
        for i, r in enumerate(measured):
            face = colour if i == 0 else "none"
            axes.plot(
                x, r["operations_per_second"] * 1e-9, _MARKERS[case["operator"]], color=colour, mfc=face, ms=8 if i == 0 else 5
            )
        if measured:
            share = f"{case['operator']} {case['shape']}: {100 * measured[0]['share']:.0f} %"
            axes.plot([], [], _MARKERS[case["operator"]], color=colour, label=share)
    axes.set(xscale="log", yscale="log", xlim=(low, high), xlabel="operations per byte", ylabel="GFLOP/s")
    axes.set_ylim(top=max(flops * 3e-9, axes.get_ylim()[1]))
    axes.grid(alpha=0.25, which="both", lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], ls="", marker="o", color="grey", mfc="none", ms=5))
    figure.legend(handles, [*labels, "hollow: peers"], loc="outside lower center", ncols=2, fontsize=7.5, frameon=False)
    axes.set_title(f"Share of the roof, fastdraw's in per cent\n{report['about']}", fontsize=8, wrap=True)
    picture.save(path, lambda file: figure.savefig(file, format="png"))
