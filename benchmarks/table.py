"""Figures as text: a block for each case in the terminal, and Markdown tables for the documentation and for reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastdraw.profile.figures import Row, count_text, digits, mebibytes_text, time_text

#: A case's figures as JSON holds them: what conftest.py's `race` makes.
Result = dict[str, Any]

#: Cores that other programs may keep busy while a case is timed; beyond it the table says so.
BUSY = 0.1

EXPLANATION = (
    "Medians over turns that alternate between the variants, and in brackets the quartiles. x: the reference's time divided by"
    " this time. Floor: the least time for the bytes and operations named, at the rates of a copy and of a matrix product"
    " measured on this machine."
)


def figure_text(result: Result, figure: float) -> str:
    """A time, or bytes of memory where the result's unit says so."""
    return mebibytes_text(figure) if result.get("unit") == "B" else time_text(figure)


def ratio_text(result: Result, name: str) -> str:
    """How many times faster than the reference; of memory, the share of the reference's. Empty where there is none."""
    ratio = speedup(result, name)
    if ratio is None:
        return ""
    return f"{1 / ratio:.2f} of it" if result.get("unit") == "B" else f"{ratio:.2f}x"


def model_text(result: Result, r: Row) -> str:
    """Of a model: microseconds per glimpse and images per second."""
    if not result.get("glimpses") or r["median"] is None:
        return ""
    return f"{digits(r['median'] / result['glimpses'] * 1e6)} us/glimpse, {digits(result['batch'] / r['median'])} images/s"


def speedup(result: Result, name: str) -> float | None:
    """How many times faster than the reference; None where either was not measured."""
    medians = {r["name"]: r["median"] for r in result["rows"]}
    return medians["reference"] / medians[name] if medians.get(name) and medians.get("reference") else None


def cost_line(result: Result) -> str:
    if result["floor"] is None:
        return ""
    moved = f"{count_text(result['bytes'], 'B')} = {result['bytes_formula']}"
    computed = f"{count_text(result['operations'], 'FLOP')} = {result['operations_formula']}"
    return f"{moved}; {computed}; floor {time_text(result['floor'])} by {result['floor_by']}"


def block(result: Result) -> list[str]:
    """The lines of one case."""
    lines = [f"{result['title']}: {result['measured']}"]
    width = max(20, *(len(r["name"]) for r in result["rows"]))
    if result["floor"] is not None:
        lines.append(f"  {cost_line(result)}")
    if (result.get("others busy") or 0.0) > BUSY:
        lines.append(f"  other programs kept {result['others busy']:.1f} cores busy meanwhile: measure again")
    for r in result["rows"]:
        if r["median"] is None:
            lines.append(f"  {r['name']:<{width}} not measured: {r['note']}")
            continue
        low, middle, high = (figure_text(result, r[key]) for key in ("low", "median", "high"))
        text = f"  {r['name']:<{width}} {middle:>9}  [{low}, {high}]".ljust(width + 36)
        text += f"{ratio_text(result, r['name']) or '-':>7}"
        if result.get("glimpses"):
            text += f"  {model_text(result, r)}"
            text += f", products {100 * r['products']:.0f} % of it" if r.get("products") else ""
            text += f", compiled in {time_text(r['compile'])}" if r.get("compile") else ""
        elif result["floor"] is not None:
            moved = count_text(result["bytes"] / r["median"], "B/s")
            computed = count_text(result["operations"] / r["median"], "FLOP/s")
            text += f"  {moved:>10}  {computed:>12}  {100 * result['floor'] / r['median']:5.1f} % of floor"
        if r["eager"] is not None:
            text += f"  {time_text(r['eager'])} from Python"
        lines.append(text + (f"  ({r['note']})" if r["note"] else ""))
    return lines


def terminal(results: list[Result], environment: str) -> list[str]:
    lines = [environment, EXPLANATION, ""]
    for result in results:
        lines += [*block(result), ""]
    return lines


def markdown(results: list[Result]) -> str:
    """Operators: a line a case, a column a variant. Models and memory, with many variants: a table a case."""
    wide = [result for result in results if not _is_long(result)]
    parts = [_wide(wide)] if wide else []
    return "\n\n".join([*parts, *(_long(result) for result in results if _is_long(result))])


def _is_long(result: Result) -> bool:
    return bool(result.get("glimpses") or result.get("unit"))


def _long(result: Result) -> str:
    of_memory = result.get("unit") == "B"
    columns = ["", "peak" if of_memory else "time", "share of the reference's" if of_memory else "against the reference"]
    columns += [] if of_memory else ["us per glimpse", "images/s", "products / time", "compile"]
    lines = [f"{result['title']}: {result['measured']}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for r in result["rows"]:
        if r["median"] is None:
            lines.append(f"| {r['name']} | not measured: {r['note']} |{' |' * (len(columns) - 2)}")
            continue
        cells = [r["name"], figure_text(result, r["median"]), ratio_text(result, r["name"]).removesuffix(" of it")]
        if not of_memory:
            cells += [digits(r["median"] / result["glimpses"] * 1e6), digits(result["batch"] / r["median"])]
            cells.append(f"{r['products']:.2f}" if r.get("products") else "")
            cells.append(time_text(r["compile"]) if r.get("compile") else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _wide(results: list[Result]) -> str:
    """The median, and how many times faster than the reference."""
    names: list[str] = []
    for result in results:
        names += [r["name"] for r in result["rows"] if r["name"] not in names]
    lines = [f"| case | floor | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 2)}"]
    for result in results:
        rows = {r["name"]: r for r in result["rows"]}
        floor = "" if result["floor"] is None else f"{time_text(result['floor'])} ({result['floor_by']})"
        cells = [_cell(result, rows.get(name)) for name in names]
        lines.append(f"| {result['title']} | {floor} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(result: Result, r: Row | None) -> str:
    if r is None:
        return ""
    if r["median"] is None:
        return "not measured"
    ratio = ratio_text(result, r["name"])
    return figure_text(result, r["median"]) + (f" ({ratio})" if ratio and r["name"] != "reference" else "")


def roofline(results: list[Result]) -> str:
    """What fastdraw reaches of the measured ceilings: the first row of every case."""
    lines = ["| case | time | bytes | GB/s | operations | GFLOP/s | floor | share of floor |", f"|{' --- |' * 8}"]
    for result in results:
        r = result["rows"][0]
        if r["median"] is None or result["floor"] is None:
            continue
        moved = f"{count_text(result['bytes'], 'B')} = {result['bytes_formula']}"
        computed = f"{count_text(result['operations'], 'FLOP')} = {result['operations_formula']}"
        rates = (result["bytes"] / r["median"] * 1e-9, result["operations"] / r["median"] * 1e-9)
        share = f"{100 * result['floor'] / r['median']:.0f} %"
        floor = f"{time_text(result['floor'])} by {result['floor_by']}"
        cells = [result["title"], time_text(r["median"]), moved, digits(rates[0]), computed, digits(rates[1]), floor, share]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    # The file that `pytest --benchmark --benchmark-log=FILE` wrote, as the tables of docs/performance.md.
    logged = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print(markdown(logged), "", roofline(logged), sep="\n")
