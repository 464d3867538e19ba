"""Short controlled comparisons of settings: the same number of images for each, judged by the validation images alone.

    python -m benchmarks.reproduce.search --images 300000 --log docs/results/search.jsonl \\
        --base data=binarized-mnist data_dir=DATA glimpses=8 precision=bf16 ema=0.999 \\
        -- base cosine:schedule=cosine cosine-2e-3:schedule=cosine,learning_rate=2e-3

What is varied comes last: NAME:OPTION=VALUE,..., options being those of `fastdraw train`. Each run appends one line of JSON to
the log. Variants whose name and seed the log has already are left out, so an interrupted search goes on by the same command.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.reproduce.settings import options_of
from fastdraw.cli import guarded
from fastdraw.evaluation import evaluate_run
from fastdraw.train import TrainOptions, train


def run(name: str, options: dict[str, Any], images: int) -> dict[str, Any]:
    """Trains once, and says what came of it: nats (or error) on the validation images."""
    with tempfile.TemporaryDirectory() as folder:
        said = TrainOptions(**options, out=f"{folder}/run", skip_test=True)
        batch = said.batch_size or said.recipe.batch_size
        said = TrainOptions(**{**said.to_dict(), "steps": images // batch, "epochs": 10**6})
        result = train(said)
        score = {"average" if said.ema else "weights": _score(folder, said, ema=True)}
        if said.ema:
            score["weights"] = _score(folder, said, ema=False)
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return {
        "name": name,
        "options": options,
        "images": result.step * batch,
        "validation": score,
        "curve": [[line["step"] * batch, round(line["nats"], 2)] for line in lines if line["split"] == "validation"],
        "seconds": lines[-1]["seconds"],
    }


def _score(folder: str, options: TrainOptions, ema: bool) -> dict[str, float | None]:
    result: Any = evaluate_run(f"{folder}/run", split="validation", ema=ema, device=options.device).result
    mean = result.error if hasattr(result, "error") else result.bound
    return {"mean": round(mean.mean, 4), "standard_error": mean.standard_error and round(mean.standard_error, 4)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce.search", description=__doc__)
    parser.add_argument("--images", type=int, required=True, help="training images that every variant sees")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--base", nargs="*", default=[], metavar="OPTION=VALUE")
    parser.add_argument("variants", nargs="+", metavar="NAME[:OPTION=VALUE,...]")
    said = parser.parse_args(arguments)
    return guarded(lambda: _search(said))


def _search(said: argparse.Namespace) -> int:
    done = [json.loads(line) for line in said.log.read_text().splitlines()] if said.log.exists() else []
    for text in said.variants:
        name, _, changes = text.partition(":")
        options = options_of(said.base) | options_of(changes.split(",") if changes else [])
        if any(one["name"] == name and one["options"].get("seed") == options.get("seed") for one in done):
            continue
        found = run(name, options, said.images) | {"commit": environment.describe()["commit"]}
        found["options"].pop("data_dir", None)
        with open(said.log, "a") as log:
            log.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
