"""The report of an experiment: results.json with everything, results.md to be read, from what the seeds' folders hold."""

from __future__ import annotations

import json
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.reproduce.experiments import EXPERIMENTS, Experiment
from fastdraw.files import write_atomically
from fastdraw.runs import checkpoint
from fastdraw.train import TrainOptions, load_checkpoint

FORMAT = 1
#: Options that say where a run was and not what it computed, or that differ between seeds.
LEFT_OUT = ("data_dir", "out", "resume", "overwrite", "minutes", "seed", "device", "threads", "skip_test", "samples")


def write(folder: Path, experiment: str) -> list[Path]:
    """results.json and results.md of all seeds that were evaluated; none of them is ever half written."""
    found = collect(folder, experiment)
    texts = {"results.json": json.dumps(found, indent=1) + "\n", "results.md": markdown(found)}
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def collect(folder: Path, experiment: str) -> dict[str, Any]:
    known = EXPERIMENTS[experiment]
    runs = [_run(one) for one in sorted(folder.glob("seed-*"), key=_seed) if (one / "test.json").exists()]
    options = [json.loads((folder / f"seed-{run['seed']}" / "config.json").read_text()) for run in runs]
    figures = [score(run)["mean"] for run in runs]
    return {
        "format": FORMAT,
        "experiment": experiment,
        "title": known.title,
        "unit": known.unit,
        "paper": known.paper,
        "note": known.note,
        "departures": _departures(known, options[0]),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": options[0]["model"],
        "images": options[0]["images"],
        "options": {name: value for name, value in options[0]["options"].items() if name not in LEFT_OUT},
        "test": {
            "mean": statistics.fmean(figures),
            "spread": statistics.stdev(figures) if len(figures) > 1 else None,
            "seeds": len(figures),
        },
        "runs": runs,
    }


def _departures(known: Experiment, about: dict[str, Any]) -> list[str]:
    """In what the data or the model differ from the experiment's own."""
    own = TrainOptions(**known.options)
    model = own.config(tuple(about["model"]["image_shape"])).to_dict() | {"image_shape": about["model"]["image_shape"]}
    out = [f"{name} {about['model'][name]} for {value}" for name, value in model.items() if about["model"][name] != value]
    data = about["options"]["data"]
    return out if data == own.data else [f"data {Path(data).name} for {own.data}", *out]


def score(run: dict[str, Any]) -> dict[str, Any]:
    """The figure that the paper has: the bound from one sample, or the error."""
    return run["test"]["error" if "error" in run["test"] else "bound"]


def _seed(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def _run(folder: Path) -> dict[str, Any]:
    about, tested = (json.loads((folder / name).read_text()) for name in ("config.json", "test.json"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    saved, options = load_checkpoint(folder), about["options"]
    seconds, images = saved.training["progress"]["seconds"], saved.step * options["batch_size"]
    name = "error" if options["task"] == "classify" else "nats"
    curve = {
        split: [[line["step"], line["epoch"], round(line[name], 4)] for line in lines if line["split"] == split]
        for split in ("train", "validation")
    }
    validation = [line for line in lines if line["split"] == "validation"][-1]
    return {
        "seed": options["seed"],
        "steps": saved.step,
        "epochs": saved.step / (about["images"]["train"] // options["batch_size"]),
        "images": images,
        "training_seconds": seconds,
        "images_per_second": images / seconds if seconds else None,
        "trained_on": {"device": about["device"], "threads": about["threads"], "versions": about["versions"]},
        "validation": {"mean": validation[name], "standard_error": validation["standard_error"]},
        "test": tested["result"],
        "evaluation": {key: tested[key] for key in ("samples", "averaged", "batch_size", "precision", "seconds")},
        "environment": tested["environment"],
        "weights": sum(tensor.numel() for tensor in saved.model.values()),
        "checkpoint_bytes": (folder / checkpoint.NAME).stat().st_size,
        "curve": curve,
    }


def markdown(found: dict[str, Any]) -> str:
    unit, test, runs = found["unit"], found["test"], found["runs"]
    many = found["images"]
    lines = [f"# {found['title']}", ""]
    told = f"{test['mean']:.2f}" + (f" +- {test['spread']:.2f} (spread)" if test["spread"] is not None else "")
    seeds = f"{test['seeds']} seeds" if test["seeds"] > 1 else "one seed"
    lines.append(f"**{told} {unit}** on {many['test']:,} test images, {seeds}.")
    lines[-1] += f" The paper: {found['paper']:.2f}." if found["paper"] is not None else " The paper gives no figure."
    if found["departures"]:
        lines += ["", f"Not the experiment as it stands: {', '.join(found['departures'])}."]
    lines += ["", found["note"]] if found["note"] else []
    draws = "bound" in runs[0]["test"]
    second = f"test, {runs[0]['evaluation']['samples']} samples" if draws else "cross-entropy"
    lines += ["", f"| seed | test, {unit} | {second} | validation | epochs | training | images/s |", "|" + " --- |" * 7]
    for run in runs:
        other = run["test"]["importance" if draws else "cross_entropy"]
        rate = f"{run['images_per_second']:,.0f}" if run["images_per_second"] else "-"
        lines.append(
            f"| {run['seed']} | {_mean(score(run))} | {_mean(other, 2 if draws else 4)} | {_mean(run['validation'])} | "
            f"{run['epochs']:.1f} | {run['training_seconds'] / 60:.1f} min | {rate} |"
        )
    lines += ["", "Each figure +- its standard error over the images. Settings were not chosen by the test images.", ""]
    for run in runs:
        on, sets = run["trained_on"], run["environment"]
        versions = f"torch {on['versions']['torch']}, fastdraw {on['versions']['fastdraw']}"
        lines.append(f"Seed {run['seed']}: trained on {on['device']}, {on['threads']} threads, {versions}; evaluated on")
        lines[-1] += f" {environment.line(sets)}."
    lines += ["", f"{many['train']:,} images to train on, {many['validation']:,} to choose by. Options:", "", "```"]
    lines += [f"{name} = {value}" for name, value in found["options"].items() if value is not None]
    lines += ["```", "", "![the curves](curve.png)", "", "![samples](samples.png)" if draws else "![windows](attention.png)"]
    return "\n".join(lines) + "\n"


def _mean(value: dict[str, Any], digits: int = 2) -> str:
    error = value["standard_error"]
    return f"{value['mean']:.{digits}f}" + ("" if error is None else f" +- {error:.{digits}f}")
