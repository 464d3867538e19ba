"""Figures as tables: in the terminal, at most 100 columns wide, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdraw.profile.figures import Row, count_text, digits, mebibytes_text, time_text
from fastdraw.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: A case's figures as JSON holds them.
Result = dict[str, Any]

#: Cores that other programs may keep busy while a case is timed; beyond it the table says so.
BUSY = 0.2
#: What the whole table takes; narrower terminals get it without the quartiles.
WIDTH = 100
#: Results of the same maths differ by rounding; beyond this share a variant computes something else.
SAME = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}


class Column(NamedTuple):
    """text: of a row that was measured; empty where the row has no such figure."""

    name: str
    width: int
    text: Callable[[Result, Row], str]
    right: bool = True


def figure_text(result: Result, figure: float) -> str:
    """A time, or bytes of memory where the result's unit says so."""
    return mebibytes_text(figure) if result.get("unit") == "B" else time_text(figure)


def _quartiles(result: Result, r: Row) -> str:
    one, other = (figure_text(result, r[key]) for key in ("low", "high"))
    return f"{one.split()[0] if one.split()[1] == other.split()[1] else one} - {other}"


def ratio_text(result: Result, r: Row) -> str:
    """How many times faster than the reference; of memory, the share of the reference's. Empty where there is none."""
    medians = {row["name"]: row["median"] for row in result["rows"]}
    if not medians.get("reference") or not r["median"]:
        return ""
    ratio = medians["reference"] / r["median"]
    return f"{1 / ratio:.2f}" if result.get("unit") == "B" else f"{ratio:.2f}x"


def _rate(name: str, scale: float = 1e-9) -> Callable[[Result, Row], str]:
    return lambda _, r: digits(r[name] * scale) if r.get(name) else ""


def _share(_: Result, r: Row) -> str:
    share = r.get("share")
    return "" if share is None else f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def _launches(result: Result, r: Row) -> str:
    found = r.get("launches")
    return "-" if found is None else digits(found / (result["glimpses"] or 1)).removesuffix(".00")


_NAME = Column("variant", 19, lambda _, r: r["name"], right=False)
_TIME = Column("time", 7, lambda result, r: figure_text(result, r["median"]))
_QUARTILES = Column("quartiles", 16, _quartiles)
_RATES = (
    Column("images/s", 8, _rate("images_per_second", 1.0)),
    Column("GB/s", 6, _rate("bytes_per_second")),
    Column("GFLOP/s", 7, _rate("operations_per_second")),
    Column("of roof", 7, _share),
)
#: What `fastdraw profile` shows, and what `pytest --benchmark` does.
PROFILED = (
    *(_NAME, _TIME, _QUARTILES, *_RATES),
    Column("calls", 6, _launches),
    Column("peak MB", 7, lambda _, r: "-" if r.get("peak_bytes") is None else digits(r["peak_bytes"] * 1e-6)),
)
RACED = (_NAME._replace(width=28), _TIME, _QUARTILES, Column("x", 6, ratio_text), *_RATES)

EXPLANATION = (
    "Medians over turns that alternate between the variants. GB/s and GFLOP/s are the least bytes and operations of the "
    "case over the time, and of read and write they count the pixels that windows see, not the image. Of roof: the least "
    "time that the two ceilings allow, over the time. "
)


def explain(device: str) -> str:
    calls = "kernels launched" if device == "cuda" else "operators of torch and C++ functions that compute"
    peak = "Peak: what one step allocates. ~: approximate, computes something else."
    return f"{EXPLANATION}Calls: {calls}, for one glimpse. {peak}"


def products_text(roof: Result) -> str:
    """The rate that operations are held against, and how it was found."""
    rate, product, peak = (roof[f"{name}_per_second"] for name in ("operations", "torch_product", "multiply_adds"))
    if peak is None:
        return f"{count_text(rate, 'FLOP/s')}, torch's best"
    one = count_text(roof["multiply_adds_of_a_thread"], "FLOP/s")
    return f"{count_text(peak, 'FLOP/s')} in registers ({one} by one thread), torch {product / peak:.2f} of it"


def empty(console: Console, columns: Sequence[Column], header: bool = False) -> Table:
    from rich.table import Table

    made = Table(show_header=header, header_style="bold", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in _shown(console, columns):
        made.add_column(column.name, width=column.width, justify="right" if column.right else "left", no_wrap=True)
    return made


def _shown(console: Console, columns: Sequence[Column]) -> list[Column]:
    """Those that there is room for."""
    return [column for column in columns if column is not _QUARTILES or console.width >= WIDTH]


def show_head(console: Console, about: str, roofs: Sequence[Result]) -> None:
    console.print(about, style="dim", highlight=False, markup=False)
    low, high = (which(r["copy_bytes_per_second"] for r in roofs) for which in (min, max))
    spread = count_text(low, "B/s") if high / low < 1.05 else f"{count_text(low, 'B/s')} to {count_text(high, 'B/s')}"
    several = "" if high / low < 1.05 else ", by the size of what a case moves (caches help small ones)"
    console.print(f"Ceilings: copy {spread}{several};", highlight=False)
    for dtype, text in sorted({(r["dtype"], products_text(r)) for r in roofs}):
        console.print(f"          products in {dtype} {text}", highlight=False)
    console.print()
    console.print(empty(console, PROFILED, header=True))


def title(result: Result) -> str:
    return result["title"] + ("" if result.get("dtype") in (None, "float32") else f", {result['dtype']}")


def cost_line(result: Result, formulas: bool = False) -> str:
    """The least that the case costs; empty where that is not known."""
    if not result.get("floor"):
        return ""
    moved, computed = count_text(result["bytes"], "B"), count_text(result["operations"], "FLOP")
    if formulas:
        moved, computed = f"{moved} = {result['bytes_formula']}", f"{computed} = {result['operations_formula']}"
    return f"at least {moved}, {computed}: {time_text(result['floor'])} by {result['floor_by']}"


def show_case(console: Console, result: Result, columns: Sequence[Column] = PROFILED, formulas: bool = False) -> None:
    """The case's line, what it costs at least, and a row for each variant."""
    console.print(title(result), style="bold cyan", highlight=False, markup=False)
    least = cost_line(result, formulas)
    console.print(f"  {result['measured']}" + (f"\n  {least}" if least else ""), style="dim", highlight=False, markup=False)
    if (result.get("others_busy") or 0.0) > BUSY:
        console.print(f"  other programs kept {result['others_busy']:.1f} cores busy: measure again", style="yellow")
    rows, shown = empty(console, columns), _shown(console, columns)
    notes = []
    for r in result["rows"]:
        if r["median"] is None:
            notes.append(f"  {r['name']}: not measured: {r['note']}")
            continue
        rows.add_row(*(column.text(result, r) for column in shown), style="bold" if r is result["rows"][0] else "")
        notes += [f"  {r['name']}: {text}" for text in remarks(result, r)]
    console.print(rows)
    for text in notes:
        # An error's text may hold brackets, which are no markup.
        console.print(printable(text), style="dim", highlight=False, markup=False)
    console.print()


def remarks(result: Result, r: Row) -> list[str]:
    found = [r["note"]] if r["note"] else []
    difference = r.get("difference")
    if r.get("approximate"):
        differs = "" if difference is None else f"; its patch differs by {100 * difference:.0f} %"
        found.append(f"approximate: {r['approximate']}{differs}")
    elif difference is not None and difference > SAME[result["dtype"]]:
        found.append(f"its result differs from fastdraw's by {100 * difference:.2g} %")
    if (result.get("glimpses") or 1) > 1:
        found.append(f"{time_text(r['seconds_per_glimpse'])} a glimpse")
    found += [f"products {100 * r['products']:.0f} % of it"] if r.get("products") else []
    found += [f"compiled in {time_text(r['compile'])}"] if r.get("compile") else []
    found += [f"{time_text(r['eager'])} launched from Python"] if r["eager"] is not None else []
    return found


def markdown(results: Sequence[Result]) -> str:
    """Operators: a line a case, a column a variant. Models and memory, with many variants: a table a case."""
    wide = [result for result in results if not _is_long(result)]
    parts = [_wide(wide)] if wide else []
    return "\n\n".join([*parts, *(_long(result) for result in results if _is_long(result))])


def _is_long(result: Result) -> bool:
    return (result.get("glimpses") or 1) > 1 or bool(result.get("unit"))


def _lines(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    head, *rest = (f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *rest])


def _long(result: Result) -> str:
    if result.get("unit") == "B":
        columns = {"peak": _TIME.text, "share of the reference's": ratio_text}
    else:
        columns = {
            "time": _TIME.text,
            "against the reference": ratio_text,
            "us per glimpse": lambda _, r: digits(r["seconds_per_glimpse"] * 1e6),
            "images/s": _rate("images_per_second", 1.0),
            "products / time": lambda _, r: f"{r['products']:.2f}" if r.get("products") else "",
            "compile": lambda _, r: time_text(r["compile"]) if r.get("compile") else "",
        }
    rows = [["", *columns]]
    for r in result["rows"]:
        absent = [f"not measured: {r['note']}", *[""] * (len(columns) - 1)]
        rows.append([r["name"], *(absent if r["median"] is None else [text(result, r) for text in columns.values()])])
    return f"{title(result)}: {result['measured']}\n\n{_lines(rows)}"


def _wide(results: Sequence[Result]) -> str:
    """The median, and how many times faster than the reference."""
    names = list(dict.fromkeys(r["name"] for result in results for r in result["rows"]))
    rows = [["case", "floor", *names]]
    for result in results:
        cells = {r["name"]: _cell(result, r) for r in result["rows"]}
        floor = f"{time_text(result['floor'])} ({result['floor_by']})" if result.get("floor") else ""
        rows.append([title(result), floor, *(cells.get(name, "") for name in names)])
    return _lines(rows)


def _cell(result: Result, r: Row) -> str:
    if r["median"] is None:
        return "not measured"
    ratio = ratio_text(result, r)
    return figure_text(result, r["median"]) + (f" ({ratio})" if ratio and r["name"] != "reference" else "")


def roofline(results: Sequence[Result]) -> str:
    """What fastdraw reaches of the measured ceilings: the first row of every case."""
    rows = [["case", "time", "least", "GB/s", "GFLOP/s", "share of floor"]]
    for result in results:
        r = result["rows"][0]
        if r["median"] is not None and result.get("floor"):
            rates = (column.text(result, r) for column in _RATES[1:])
            rows.append([title(result), time_text(r["median"]), cost_line(result, formulas=True), *rates])
    return _lines(rows)
