"""This run against an earlier one: what got slower."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdraw.profile.figures import time_text
from fastdraw.text import printable, short

if TYPE_CHECKING:
    from rich.console import Console

#: A median that rose by less is not called slower, nor one whose quartiles still overlap with the old ones.
THRESHOLD = 1.1
VERSION = 1
#: Bytes of a report at most, and seconds of a call at least and at most: others were not measured.
LARGEST, SHORTEST, LONGEST = 1 << 26, 1e-12, 1e9


class Change(NamedTuple):
    case: str
    variant: str
    old: float
    new: float
    #: "slower", "faster" or "".
    verdict: str

    @property
    def own(self) -> bool:
        return self.variant.startswith("fastdraw")


def load(path: str) -> dict[str, Any]:
    """An earlier report, checked. Raises ValueError for another file, OSError where there is none."""
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    try:
        report: Any = json.loads(content) if len(content) <= LARGEST else None
        wrong = _wrong(report)
    except (ValueError, RecursionError):
        wrong = "no JSON"
    if wrong:
        raise ValueError(f"compare: expected a file that `fastdraw profile --json` wrote, got {printable(path)} with {wrong}")
    return report


def _wrong(report: Any) -> str:
    """What is not as `fastdraw profile --json` writes it; empty where nothing is."""
    if not isinstance(report, dict) or report.get("fastdraw profile") != VERSION:
        return f"no version {VERSION} of a report"
    if not isinstance(report.get("when"), str) or not isinstance(report.get("machine"), dict):
        return "no time and machine"
    if not isinstance(cases := report.get("cases"), list):
        return "no cases"
    for number, case in enumerate(cases, 1):
        names = ("operator", "shape", "dtype", "device")
        if not isinstance(case, dict) or not all(isinstance(case.get(name), str) for name in names):
            return f"a case {number} without {', '.join(names)}"
        if not isinstance(rows := case.get("rows"), list) or not all(map(_is_row, rows)):
            return f"a case {number} whose rows are not names with their seconds"
    return ""


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or "median" not in row:
        return False
    if row["median"] is None:
        return True
    times: list[Any] = [row.get(name) for name in ("low", "median", "high")]
    # Compared as they are: a whole number may be too large for a float.
    return all(type(t) in (int, float) and SHORTEST < t < LONGEST for t in times) and times == sorted(times)


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Of what both runs have measured: the same shape, variant, dtype and device."""
    before = {key: row for key, row in _rows(old)}
    found = []
    for key, row in _rows(new):
        if key not in before:
            continue
        was = before[key]
        verdict = ""
        if row["median"] > THRESHOLD * was["median"] and row["low"] > was["high"]:
            verdict = "slower"
        elif was["median"] > THRESHOLD * row["median"] and was["low"] > row["high"]:
            verdict = "faster"
        dtype = "" if key[2] == "float32" else f", {key[2]}"
        found.append(Change(f"{key[0]} {key[1]}{dtype}", key[4], was["median"], row["median"], verdict))
    return found


def _rows(report: dict[str, Any]) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    return [
        ((case["operator"], case["shape"], case["dtype"], case["device"], row["name"]), row)
        for case in report["cases"]
        for row in case["rows"]
        if row["median"] is not None
    ]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What is not the same about the machine: reasons other than the code for another time."""
    one, other = old["machine"], new["machine"]
    names = ("cpu", "cores", "threads", "device", "python", "torch", "triton", "fastdraw")
    return [
        f"{name} was {short(one.get(name))}, is {short(other.get(name))}" for name in names if one.get(name) != other.get(name)
    ]


def show(console: Console, found: list[Change], old: dict[str, Any], new: dict[str, Any], path: str) -> None:
    from rich.table import Table
    from rich.text import Text

    # Text: nothing in it is markup, whoever wrote it.
    console.print(Text.assemble((f"Against {printable(path)}", "bold"), f", of {short(old['when'])}"))
    for text in differences(old, new):
        console.print(Text(f"  {text}", style="yellow"))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for name, right in (("case", False), ("variant", False), ("was", True), ("is", True), ("new / old", True), ("", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "case")
    styles = {"slower": "bold red", "faster": "green", "": ""}
    for c in found:
        cells = (c.case, c.variant, time_text(c.old), time_text(c.new), f"{c.new / c.old:.2f}", c.verdict.upper())
        table.add_row(*(Text(printable(cell)) for cell in cells), style=styles[c.verdict])
    console.print(table)
    slower = [c for c in found if c.own and c.verdict == "slower"]
    also = [c for c in found if not c.own and c.verdict == "slower"]
    if not found:
        console.print("Nothing was measured in both runs.", style="yellow")
    elif slower:
        console.print(f"SLOWER: {len(slower)} of fastdraw's {sum(c.own for c in found)} cases.", style="bold red")
    else:
        console.print("Nothing of fastdraw's got slower.", style="green")
    if also:
        text = f"{len(also)} of the peers got slower too, in code that is not fastdraw's: the machine may be slower or busy."
        console.print(text, style="yellow")
