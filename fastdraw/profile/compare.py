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
        if len(content) > LARGEST:
            raise ValueError("it is too large for a report")
        report: Any = json.loads(content)
        if report["fastdraw profile"] != VERSION:
            raise ValueError(f"it is no version {VERSION} of a report")
        if not isinstance(report["when"], str) or not isinstance(report["machine"], dict):
            raise TypeError("its time and machine are missing")
        _times(report)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else short(error)
        raise ValueError(
            f"compare: expected a file that `fastdraw profile --json` wrote, got {printable(path)} ({why})"
        ) from None
    return report


def _times(report: dict[str, Any]) -> dict[tuple[str, ...], tuple[float, float, float]]:
    """Lower quartile, median and upper quartile of what was measured: by operator, shape, dtype, device, variant."""
    found = {}
    for case in report["cases"]:
        for row in case["rows"]:
            key = (*(case[name] for name in ("operator", "shape", "dtype", "device")), row["name"])
            if not all(isinstance(part, str) for part in key):
                raise TypeError("a name is none")
            low, median, high = times = tuple(row[name] for name in ("low", "median", "high"))
            if median is None:
                continue
            # Compared as they are: a whole number may be too large for a float. NaN fails.
            if any(type(t) not in (int, float) for t in times) or not SHORTEST < low <= median <= high < LONGEST:
                raise TypeError("a time is none")
            found[key] = (low, median, high)
    return found


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Of what both runs have measured: the same shape, variant, dtype and device."""
    before, found = _times(old), []
    for key, (low, median, high) in _times(new).items():
        if key not in before:
            continue
        old_low, old_median, old_high = before[key]
        verdict = ""
        if median > THRESHOLD * old_median and low > old_high:
            verdict = "slower"
        elif old_median > THRESHOLD * median and old_low > high:
            verdict = "faster"
        dtype = "" if key[2] == "float32" else f", {key[2]}"
        found.append(Change(f"{key[0]} {key[1]}{dtype}", key[4], old_median, median, verdict))
    return found


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
