"""The report of `make gpu`: report.json with everything, report.md to be read."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import environment, table
from fastdraw.profile import figures


class Report(NamedTuple):
    """steps: what gpu.run gives, in order. Empty dictionaries and lists stand for what was not found out."""

    steps: list[dict[str, Any]]
    environment: dict[str, Any]
    ceilings: dict[str, float]
    results: list[table.Result]


def step_line(step: dict[str, Any]) -> str:
    return f"{step['status']:<8} {step['seconds']:6.1f} s  {_last_word(step)}"


def _last_word(step: dict[str, Any]) -> str:
    """Why a step did not pass, or the last line it said."""
    last = next((text for text in reversed(step["tail"]) if text.strip()), "")
    return step["reason"] or last.strip("= ")[:100]


def markdown(report: Report) -> str:
    parts = ["# fastdraw on a GPU", _head(report), "", "| step | status | seconds | |", "| --- | --- | --- | --- |"]
    for step in report.steps:
        word = _last_word(step).replace("|", "/")
        parts.append(f"| {step['name']} | {step['status']} | {step['seconds']} | {word} |")
    if report.ceilings:
        parts += ["", "## Ceilings of this machine, measured", "", "| what | value |", "| --- | --- |"]
        parts += [f"| {name} | {value:.4g} |" for name, value in report.ceilings.items()]
    if report.results:
        parts += ["", "## Times", "", table.EXPLANATION, "", table.markdown(report.results)]
        parts += ["", "Details, with the time of a call launched from Python:", "", "```"]
        parts += [text for result in report.results for text in [*table.block(result), ""]]
        parts += ["```", "", "## Share of the ceilings", "", table.roofline(report.results)]
    failed = [step for step in report.steps if step["status"] == "failed"]
    for step in failed:
        parts += ["", f"## {step['name']}: {step['reason']}", "", "```", *step["tail"], "```"]
    return "\n".join(parts) + "\n"


def _head(report: Report) -> str:
    return environment.line(report.environment) if report.environment else "The machine could not be described."


def summary(report: Report) -> str:
    """The last lines on the screen: one a case, one a step."""
    lines = [""]
    for result in report.results:
        first = result["rows"][0]
        if first["median"] is None:
            continue
        ratio = table.speedup(result, first["name"])
        share = f"{100 * result['floor'] / first['median']:.0f} % of floor" if result["floor"] is not None else ""
        times = f"{figures.time_text(first['median']):>9}  {f'{ratio:.2f}x' if ratio else '-':>8}"
        lines.append(f"{result['title']:<44} {times}  {share}")
    lines.append("")
    lines += [f"{step['name']:<24} {step_line(step)}" for step in report.steps]
    return "\n".join(lines)


def write(out: Path, report: Report) -> None:
    """Both files, each put in place whole."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    data = {"written": now, **report._asdict()}
    for name, text in (("report.json", json.dumps(data, indent=1)), ("report.md", markdown(report))):
        new = out / f".{name}.new"
        new.write_text(text)
        os.replace(new, out / name)
