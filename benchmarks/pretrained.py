"""Makes a model that comes with fastdraw out of a run: its averaged weights in bfloat16, and a card.

    python -m benchmarks.pretrained results/reproduce/mnist/seed-0 --name mnist --data-dir DATA

The rounded weights, as anybody loads them, are evaluated on all test images, in float32; that figure stands in the card. What
was there of that name is replaced once everything is known. Exit codes: 0 done, 2 a mistake that the user can mend.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import checkout
from fastdraw.checks import expected
from fastdraw.cli import guarded

#: Bytes that weights in the package have at most.
MOST = 2_000_000
#: Options of a run that say where it was and how much it told, and those that follow from others.
LEFT_OUT = frozenset(
    (
        *("data_dir", "task", "device", "threads", "out", "resume", "overwrite", "checkpoint_every", "log_every", "minutes"),
        *("skip_test", "evaluate_every", "eval_batch", "samples"),
    )
)
#: Those that evaluation and pictures ask for.
KEPT = ("data", "image_size", "binarize", "seed", "precision")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretrained", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("--name", required=True, help="what it will be called")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where the data set lies")
    parser.add_argument("--samples", type=int, default=1, help="samples of the importance-weighted estimate (1: none)")
    parser.add_argument("--out", type=checkout.folder, metavar="FOLDER", help="where models that come with fastdraw lie")
    said = parser.parse_args(arguments)
    return guarded(lambda: _make(said))


def _make(said: argparse.Namespace) -> int:
    from fastdraw import pretrained
    from fastdraw.evaluation import evaluate_run
    from fastdraw.files import write_together
    from fastdraw.runs.checkpoint import load_checkpoint, model_of
    from fastdraw.sharing import CARD, CONFIG, WEIGHTS
    from fastdraw.train import TrainOptions

    if not said.name.isidentifier():
        raise expected("name", "letters, digits and _", said.name)
    saved = load_checkpoint(said.run)
    if "options" not in saved.training:
        raise expected("run", "a run of `fastdraw train`", said.run)
    options = TrainOptions(**saved.training["options"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, said.name)
        # The average, where the run kept one.
        model_of(saved).to(torch.bfloat16).save_pretrained(folder)
        if (size := (folder / WEIGHTS).stat().st_size) > MOST:
            raise expected("run", f"a model of at most {MOST:,} bytes in bfloat16", size)
        about = json.loads((folder / CONFIG).read_text())
        kept = {name: getattr(options, name) for name in KEPT}
        kept["data"] = Path(options.data).name
        about |= {"step": saved.step, "training": {"options": {**kept, "precision": "fp32"}}}
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        found = evaluate_run(folder, options.data, said.data_dir, samples=said.samples)
        text = card(said.name, saved, options, steps(Path(said.run), options), found)
        data = {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}
    target = (said.out or pretrained.FOLDER) / said.name
    target.mkdir(parents=True, exist_ok=True)
    write_together({**{target / name: bytes_ for name, bytes_ in data.items()}, target / CARD: text.encode()})
    print(f"{target}: {size:,} bytes, {figure(found.result)}")
    return 0


def steps(run: Path, options: Any) -> tuple[int, float] | None:
    """All steps of the run, and those of an epoch; None where the run's folder does not tell its images."""
    try:
        images = json.loads((run / "config.json").read_text())["images"]["train"]
    except (OSError, KeyError, ValueError):
        return None
    per_epoch = images // options.batch_size
    return min(options.epochs * per_epoch, options.steps or options.epochs * per_epoch), per_epoch


def figure(result: Any) -> str:
    mean, unit = (result.error, " %") if hasattr(result, "error") else (result.bound, " nats per image")
    return f"{mean.mean:.2f} +- {mean.standard_error:.2f}{unit}"


def command(options: Any, shape: tuple[int, int, int]) -> str:
    """`fastdraw train` with what must be said to get these options."""
    from fastdraw.train import TrainOptions

    said = {"data": options.data, "seed": options.seed}
    said |= {"preset": options.preset, "glimpses": options.glimpses}
    if TrainOptions(data=options.data).recipe is options.recipe:
        said.pop("preset")
    known = TrainOptions(**said).resolved(shape, 1).to_dict()
    for name, value in options.to_dict().items():
        if name not in LEFT_OUT and value != known[name] and value is not None:
            said[name] = value
    said["data"] = Path(options.data).name
    words = ["fastdraw", "train"]
    for name, value in said.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [shlex.quote(str(value))])]
    return " ".join(words)


def card(name: str, saved: Any, options: Any, length: tuple[int, float] | None, found: Any) -> str:
    from fastdraw.runs.kinds import kind

    result, config = found.result, saved.config
    done = f"step {saved.step:,}"
    if length is not None:
        done += f" of {length[0]:,} ({saved.step / length[1]:.1f} epochs)"
        if saved.step < length[0]:
            done += ". **The run is not finished; these are its weights on the way**"
    averaged = f"the moving average of its weights (decay {options.ema})" if saved.ema else "its last weights"
    lines = [f"- {figure(result)} on {found.split_images:,} test images of {Path(options.data).name}"]
    if hasattr(result, "bound"):
        lines[0] += (
            f", an upper bound on -log p(x) from one sample, as the paper's: reconstruction {result.reconstruction.mean:.2f}, "
            f"KL {result.kl.mean:.2f}"
        )
        if result.samples > 1:
            tighter = f"{result.importance.mean:.2f} +- {result.importance.standard_error:.2f}"
            lines.append(f"- {tighter} nats by the importance-weighted estimate from {result.samples} samples")
    tags = "unconditional-image-generation" if hasattr(result, "bound") else "image-classification"
    fields = "\n".join(f"- {key}: {value}" for key, value in config.to_dict().items())
    measured = "\n".join(lines)
    return f"""---
library_name: fastdraw
pipeline_tag: {tags}
tags: [draw, arxiv:1502.04623]
---
# {name}

[DRAW: A Recurrent Neural Network For Image Generation](https://arxiv.org/abs/1502.04623), {averaged}, in bfloat16.

```python
import fastdraw

model = fastdraw.{kind(found.task).model.__name__}.from_pretrained("{name}")
```

## How good

{measured}

Measured with these rounded weights, computing in float32; the error is the standard error over the images (seed {found.seed}).

## How it was made

Data: {Path(options.data).name}, the training images alone. Trained to {done}, by what is the same as

    {command(options, config.image_shape)}

and rounded, evaluated and written by `python -m benchmarks.pretrained RUN --name {name}`.

{fields}

It knows the images it was trained on, and others of no kind. Licence: MIT, as fastdraw.
"""


if __name__ == "__main__":
    sys.exit(main())
