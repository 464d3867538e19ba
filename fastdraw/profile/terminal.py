"""The figures as tables in the terminal, at most 100 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdraw.profile.figures import count_text, digits, time_text
from fastdraw.profile.measure import SAME, Result
from fastdraw.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Cores that other programs may keep busy while a case is timed; beyond it the table says so.
BUSY = 0.2
#: What the whole table takes; narrower terminals get it without the quartiles.
WIDTH = 100
_COLUMNS = (
    ("variant", 19, "left"),
    ("time", 7, "right"),
    ("quartiles", 16, "right"),
    ("images/s", 8, "right"),
    ("GB/s", 6, "right"),
    ("GFLOP/s", 7, "right"),
    ("of roof", 7, "right"),
    ("calls", 6, "right"),
    ("peak MB", 7, "right"),
)


def _shown(console: Console) -> list[int]:
    """The columns that there is room for."""
    return [i for i, (name, *_) in enumerate(_COLUMNS) if name != "quartiles" or console.width >= WIDTH]


def table(console: Console, header: bool = False) -> Table:
    from rich.table import Table

    made = Table(show_header=header, header_style="bold", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name, width, justify in (_COLUMNS[i] for i in _shown(console)):
        made.add_column(name, width=width, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return made


def explain(device: str) -> str:
    calls = "kernels launched" if device == "cuda" else "operators of torch and C++ functions that compute"
    return (
        "Medians over turns that alternate between the variants. GB/s and GFLOP/s are the least bytes and operations of the "
        "case over the time, and of read and write they count the pixels that windows see, not the image. Of roof: the least "
        f"time that the two ceilings allow, over the time. Calls: {calls}, for one glimpse. Peak: what one step allocates. "
        "~: approximate, computes something else."
    )


def show_head(console: Console, report: dict[str, Any]) -> None:
    console.print(report["about"], style="dim", highlight=False, markup=False)
    copies = {r["copy_bytes_per_second"] for r in report["cases"]}
    products = {(r["dtype"], r["operations_per_second"]) for r in report["cases"]}
    low, high = min(copies), max(copies)
    spread = count_text(low, "B/s") if high / low < 1.05 else f"{count_text(low, 'B/s')} to {count_text(high, 'B/s')}"
    several = "" if high / low < 1.05 else ", by the size of what a case moves (caches help small ones)"
    console.print(f"Ceilings: copy {spread}{several};", highlight=False)
    for dtype, rate in sorted(products):
        console.print(f"          products in {dtype} {count_text(rate, 'FLOP/s')}", highlight=False)
    console.print()
    console.print(table(console, header=True))


def show_case(console: Console, result: Result) -> None:
    """The case's line, what it costs at least, and a row for each variant."""
    dtype = "" if result["dtype"] == "float32" else f", {result['dtype']}"
    console.print(f"[bold cyan]{result['operator']} {result['shape']}[/]{dtype}", highlight=False)
    least = f"{count_text(result['bytes'], 'B')}, {count_text(result['operations'], 'FLOP')}: {time_text(result['floor'])}"
    console.print(f"  {result['measured']}\n  at least {least} by {result['floor_by']}", style="dim", highlight=False)
    if (result.get("others_busy") or 0.0) > BUSY:
        console.print(f"  other programs kept {result['others_busy']:.1f} cores busy: measure again", style="yellow")
    rows, shown = table(console), _shown(console)
    notes = []
    for r in result["rows"]:
        if r["median"] is None:
            notes.append(f"  {r['name']}: not measured: {r['note']}")
            continue
        texts = cells(result, r)
        rows.add_row(*(texts[i] for i in shown), style="bold" if r is result["rows"][0] else "")
        notes += [f"  {r['name']}: {text}" for text in remarks(result, r)]
    console.print(rows)
    for text in notes:
        # An error's text may hold brackets, which are no markup.
        console.print(printable(text), style="dim", highlight=False, markup=False)
    console.print()


def cells(result: Result, r: dict[str, Any]) -> list[str]:
    launches = "-" if r["launches"] is None else digits(r["launches"] / result["glimpses"]).removesuffix(".00")
    peak = "-" if r["peak_bytes"] is None else digits(r["peak_bytes"] * 1e-6)
    return [
        r["name"],
        time_text(r["median"]),
        _quartiles(r["low"], r["high"]),
        digits(r["images_per_second"]),
        digits(r["bytes_per_second"] * 1e-9),
        digits(r["operations_per_second"] * 1e-9),
        f"{100 * r['share']:.0f} %" if r["share"] >= 0.095 else f"{100 * r['share']:.1f} %",
        launches,
        peak,
    ]


def _quartiles(low: float, high: float) -> str:
    one, other = time_text(low), time_text(high)
    return f"{one.split()[0] if one.split()[1] == other.split()[1] else one} - {other}"


def remarks(result: Result, r: dict[str, Any]) -> list[str]:
    found = [r["note"]] if r["note"] else []
    difference = r["difference"]
    if r["approximate"]:
        differs = "" if difference is None else f"; its patch differs by {100 * difference:.0f} %"
        found.append(f"approximate: {r['approximate']}{differs}")
    elif difference is not None and difference > SAME[result["dtype"]]:
        found.append(f"its result differs from fastdraw's by {100 * difference:.2g} %")
    if result["glimpses"] > 1:
        found.append(f"{time_text(r['seconds_per_glimpse'])} a glimpse")
    if r["eager"] is not None:
        found.append(f"{time_text(r['eager'])} launched from Python")
    return found
