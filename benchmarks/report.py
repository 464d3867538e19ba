"""The report of `make gpu`: report.json with everything, report.md to be read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import choices, environment, goals, kernels, table

#: The last lines on the screen: what a lent machine gives back may be cut to 12,000 characters.
SUMMARY_LENGTH = 10_000
#: Files that steps write, by their names: <name>.json.
PARTS = ("environment", "ceilings", "probe", "kernels", "counters", "choices")


@dataclass(frozen=True)
class Report:
    """steps: what gpu.run gives, in order. Empty dictionaries and lists stand for what was not found out.

    ceilings: benchmarks.ceilings. probe: Limits of benchmarks.probe. kernels, counters: of benchmarks.kernels.
    choices: of benchmarks.choices.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    results: list[table.Result] = field(default_factory=list)
    probe: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def goals(self) -> list[goals.Goal]:
        return goals.goals(self.results, self.ceilings, self.probe.get("values", {}))


def earlier(out: Path) -> Report:
    """What a run before this one left in the folder."""
    path = out / "report.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return Report()
    return Report(**{name: value for name, value in found.items() if name in {f.name for f in fields(Report)}})


def joined(before: Report, now: Report) -> Report:
    """The later of both where both have something, step by step and case by case. Another commit's figures are not kept."""
    commits = [r.environment.get("commit") for r in (before, now)]
    if None not in commits and commits[0] != commits[1]:
        return now
    steps = {step["name"]: step for step in [*before.steps, *now.steps]}
    results = {result["title"]: result for result in [*before.results, *now.results]}
    names = PARTS
    rest = {name: getattr(now, name) or getattr(before, name) for name in names}
    return Report(list(steps.values()), results=list(results.values()), **rest)


def step_line(step: dict[str, Any]) -> str:
    return f"{step['status']:<8} {step['seconds']:6.1f} s  {_last_word(step)}"


def _last_word(step: dict[str, Any]) -> str:
    """Why a step did not pass, or the last line it said."""
    last = next((text for text in reversed(step["tail"]) if text.strip()), "")
    return step["reason"] or last.strip("= ")[:100]


def markdown(report: Report) -> str:
    parts = ["# fastdraw on a GPU", _head(report), "", "## Goals", "", goals.markdown(report.goals)]
    parts += ["", "## Steps", "", "| step | status | seconds | |", "| --- | --- | --- | --- |"]
    for step in report.steps:
        word = _last_word(step).replace("|", "/")
        parts.append(f"| {step['name']} | {step['status']} | {step['seconds']} | {word} |")
    ceilings = {**report.probe.get("values", {}), **report.ceilings}
    problems = report.probe.get("problems", {})
    if ceilings or problems:
        parts += ["", "## Ceilings of this machine, measured", "", "| what | value |", "| --- | --- |"]
        parts += [f"| {name} | {value:.4g} |" for name, value in ceilings.items()]
        parts += [f"| {name} | not measured: {problem} |" for name, problem in problems.items()]
    if report.results:
        parts += ["", "## Times", "", table.EXPLANATION, "", table.markdown(report.results)]
        parts += ["", "Details, with the time of a call launched from Python:", "", "```"]
        parts += [text for result in report.results for text in [*table.block(result), ""]]
        parts += ["```", "", "## Share of the ceilings", "", table.roofline(report.results)]
    if report.kernels:
        parts += ["", "## Kernels of a training step, launched one by one", "", "```"]
        for title, found in report.kernels.items():
            parts += [title, *kernels.lines(found), ""]
        parts.append("```")
    if report.counters:
        parts += ["", "## Hardware counters of the same kernels, by ncu", "", "```", *kernels.lines(report.counters), "```"]
    if report.choices:
        parts += ["", "## A step under other choices", "", "```"]
        parts += [text for title, rows in report.choices.items() for text in [*choices.lines(title, rows), ""]]
        parts.append("```")
    failed = [step for step in report.steps if step["status"] == "failed"]
    for step in failed:
        parts += ["", f"## {step['name']}: {step['reason']}", "", "```", *step["tail"], "```"]
    return "\n".join(parts) + "\n"


def _head(report: Report) -> str:
    return environment.line(report.environment) if report.environment else "The machine could not be described."


def summary(report: Report) -> str:
    """The last lines on the screen: one a limit of the chip, one a case, one a goal, one a step. The last matter most."""
    lines = [f"{name:<64} {value:.4g}" for name, value in {**report.probe.get("values", {}), **report.ceilings}.items()]
    lines.append("")
    for result in report.results:
        first = result["rows"][0]
        if first["median"] is None:
            continue
        ratio = table.speedup(result, first["name"])
        share = f"{100 * result['floor'] / first['median']:.0f} % of floor" if result["floor"] is not None else ""
        times = f"{table.figure_text(result, first['median']):>9}  {f'{ratio:.2f}x' if ratio else '-':>8}"
        lines.append(f"{result['title']:<60} {times}  {share}")
    for title, found in list(report.kernels.items())[:1]:
        lines += ["", kernels.whole(title, found), *kernels.lines(found, most=10)]
    for title, rows in report.choices.items():
        lines += ["", *choices.lines(title, rows)]
    lines += ["", *goals.summary(report.goals), ""]
    lines += [f"{step['name']:<38} {step_line(step)}" for step in report.steps]
    text = "\n".join(lines)
    return text if len(text) <= SUMMARY_LENGTH else "...\n" + text[-SUMMARY_LENGTH:]


def write(out: Path, report: Report) -> None:
    """Both files, each put in place whole."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    data = {"written": now, "goals": goals.as_json(report.goals), **asdict(report)}
    for name, text in (("report.json", json.dumps(data, indent=1)), ("report.md", markdown(report))):
        new = out / f".{name}.new"
        new.write_text(text)
        os.replace(new, out / name)
