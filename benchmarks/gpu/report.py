"""The report of a call: report.json with everything, report.md to be read, and the last lines on the screen."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import SIDE

#: One line of JSON for each turn, and for each row that is ready or failed.
FIGURES = "figures.jsonl"
#: The last lines on the screen: what a lent machine gives back may be cut to 12,000 characters.
SUMMARY_LENGTH = 9_000
TITLES = {
    "step": "A whole training step, B=128, T=64: forward, backward, clipping, Adam",
    "forward": "The forward pass of a training step, in a graph",
    "large": "A whole training step, B=2048",
    "peers": "A whole training step, B=128, T=64, beside compilers",
}


def records(out: Path) -> list[dict[str, Any]]:
    path = out / FIGURES
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # A line without its end was being written when its process was stopped.
    return [json.loads(line) for line in lines if line.endswith("\n")]


def tables(found: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By case and row: median, low, high (quartiles, ms), turns, and what was said of it."""
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for record in found:
        if "row" not in record:
            continue
        row = cases.setdefault(record["case"], {}).setdefault(record["row"], {"all": []})
        if "ms" in record:
            row["all"].append(record["ms"])
        else:
            row |= {name: value for name, value in record.items() if name not in ("case", "row")}
    for case in cases.values():
        for row in case.values():
            each = sorted(row["all"])
            row["turns"] = len(each)
            if each:
                low, middle, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
                row |= {"low": low, "median": middle, "high": high}
    return cases


def shares(large: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Of the rows of the large batch: the products' operations over the whole step's time, as a share of the rate that torch's
    square product reached in turns with it."""
    product = large.get(f"torch.mm {SIDE}, bfloat16", {}).get("median")
    if not product:
        return {}
    rate = 2 * SIDE**3 / product
    steps = {n: row for n, row in large.items() if n.startswith("GraphedStep") and row.get("operations") and row["turns"]}
    return {n: row["operations"] / row["median"] / rate for n, row in steps.items()}


def lines(case: str, rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Cells: row, ms, quartiles, times the reference, a word."""
    reference = rows.get("reference", {}).get("median")
    part = shares(rows) if case == "large" else {}
    found = []
    for name, row in rows.items():
        words = [row[key] if key == "failed" else f"WRONG: {row[key]}" for key in ("failed", "wrong") if row.get(key)]
        if row.get("first"):
            words.append(f"first call {row['first']:.1f} s")
        if name in part:
            words.append(f"{100 * part[name]:.1f} % of the bf16 rate")
        if name.startswith("torch.mm") and row["turns"]:
            words.append(f"{2 * SIDE**3 / row['median'] * 1e-9:.0f} TFLOP/s")
        time = f"{row['median']:.3f}" if row["turns"] else "-"
        spread = f"{row['low']:.3f}-{row['high']:.3f}, {row['turns']}" if row["turns"] else ""
        ratio = f"{reference / row['median']:.1f}x" if reference and row["turns"] else ""
        found.append([name, time, spread, ratio, "; ".join(words)])
    return found


def markdown(environment: dict[str, Any], steps: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    smi = (environment.get("nvidia-smi") or "").splitlines()
    keys = ("device", "cuda", "torch", "triton", "python", "cpu", "cores", "commit")
    head = [f"{key} {environment.get(key)}" for key in keys]
    parts = ["# fastdraw on a GPU", "", ", ".join(head), "", *(f"    {line}" for line in smi), "", "## Steps", ""]
    parts += ["| step | | s | |", "| --- | --- | --- | --- |"]
    parts += [f"| {s['name']} | {s['status']} | {s['seconds']} | {s['word'].replace('|', '/')} |" for s in steps]
    for case, rows in tables(found).items():
        parts += ["", f"## {TITLES.get(case, case)}", ""]
        parts += ["| | ms | quartiles, turns | times the reference's speed | |", "|" + " --- |" * 5]
        parts += ["| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |" for cells in lines(case, rows)]
    for record in found:
        if "kernels" in record:
            total = sum(row["us in all"] for row in record["kernels"].values())
            parts += ["", f"## Kernels of a step, {record['case']}: {total:.0f} us launched one by one", ""]
            parts += ["| kernel | calls | us each, median | us in all |", "| --- | --- | --- | --- |"]
            for name, row in record["kernels"].items():
                parts.append(f"| {name[:90]} | {row['calls']} | {row['us']:.2f} | {row['us in all']:.0f} |")
    return "\n".join(parts) + "\n"


def write(out: Path, environment: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    found = records(out)
    kernels = {record["case"]: record["kernels"] for record in found if "kernels" in record}
    whole = {"environment": environment, "steps": steps, "cases": tables(found), "kernels": kernels}
    for name, text in (("report.json", json.dumps(whole, indent=1)), ("report.md", markdown(environment, steps, found))):
        new = out / f".{name}.new"
        new.write_text(text)
        new.replace(out / name)


def summary(out: Path, steps: list[dict[str, Any]]) -> str:
    """The last matter most: one line a kernel, one a row, one a step."""
    found, text = records(out), []
    for record in found:
        if "kernels" in record:
            text += ["", f"kernels, {record['case']}"]
            text += [f"{r['us']:8.2f} us x {r['calls']:<5} {name[:60]}" for name, r in list(record["kernels"].items())[:20]]
    for case, rows in tables(found).items():
        text += ["", TITLES.get(case, case)]
        text += [f"{c[0]:<42} {c[1]:>9} ms  [{c[2]}]  {c[3]:>7}  {c[4]}" for c in lines(case, rows)]
    text += ["", *(f"{s['status']:<8} {s['seconds']:6.1f} s  {s['name']}: {s['word'][:150]}" for s in steps)]
    whole = "\n".join(text)
    return whole if len(whole) <= SUMMARY_LENGTH else "...\n" + whole[-SUMMARY_LENGTH:]
