"""This run against an earlier one: what got slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdraw.checks import expected
from fastdraw.profile.figures import time_text

if TYPE_CHECKING:
    from rich.console import Console

#: A median that rose by less is not called slower, nor one whose quartiles still overlap with the old ones.
THRESHOLD = 1.1
VERSION = 1


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
    """An earlier report. Raises ValueError where the file is something else, OSError where there is none."""
    try:
        report = json.loads(Path(path).read_text())
        whole = report["fastdraw profile"] == VERSION and isinstance(report["cases"], list)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise expected("compare", "a file that `fastdraw profile --json` wrote", path)
    return report


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
    return [f"{name} was {one.get(name)}, is {other.get(name)}" for name in names if one.get(name) != other.get(name)]


def show(console: Console, found: list[Change], old: dict[str, Any], new: dict[str, Any], path: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]Against {escape(path)}[/], of {old['when']}", highlight=False)
    for text in differences(old, new):
        console.print(f"  {text}", style="yellow", highlight=False)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for name, right in (("case", False), ("variant", False), ("was", True), ("is", True), ("new / old", True), ("", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "case")
    styles = {"slower": "bold red", "faster": "green", "": ""}
    for c in found:
        cells = (c.case, c.variant, time_text(c.old), time_text(c.new), f"{c.new / c.old:.2f}", c.verdict.upper())
        table.add_row(*cells, style=styles[c.verdict])
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
