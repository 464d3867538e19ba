"""One of the paper's experiments: trained, measured on the test images, drawn and written down.

    python -m benchmarks.reproduce mnist --data-dir DATA --out results/reproduce --seeds 0 1 2 --minutes 9

Each seed has a folder with its checkpoint; the report of all is results.json and results.md beside them. The same command goes
on where it was stopped, also on another machine that was given the folder. Exit codes: 0 done, 1 nats no longer finite, 2 a
mistake that the user can mend, 130 or 143 stopped by a signal, 142 after --minutes: run it again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import checkout
from benchmarks.reproduce.experiments import EXPERIMENTS
from benchmarks.reproduce.settings import options_of
from fastdraw.cli import error_line, guarded


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise SystemExit(error_line(message, 2))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _Parser(
        prog="python -m benchmarks.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--data-dir", metavar="FOLDER", help="where the data set lies; otherwise it is downloaded")
    parser.add_argument("--out", type=checkout.folder, default=Path("results/reproduce"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="NUMBER")
    parser.add_argument("--epochs", type=int, help="passes over the training images, if not the recipe's")
    parser.add_argument("--glimpses", type=int, help="glimpses, if not the paper's")
    parser.add_argument(
        "--minutes", type=float, help="training stops after so many minutes, all seeds together, with a checkpoint"
    )
    parser.add_argument("--samples", type=int, default=100, help="samples of the importance-weighted estimate (100)")
    parser.add_argument("--batch", type=int, metavar="IMAGES", help="images times samples evaluated at once")
    parser.add_argument("--set", nargs="+", default=[], metavar="OPTION=VALUE", help="other options of `fastdraw train`")
    said = parser.parse_args(arguments)
    return guarded(lambda: _run(said))


def _run(said: argparse.Namespace) -> int:
    from benchmarks.reproduce.runner import Said, reproduce
    from fastdraw.train import DivergedError, Interrupted

    options = {name: getattr(said, name) for name in ("data_dir", "epochs", "glimpses")}
    options = {name: value for name, value in options.items() if value is not None} | options_of(said.set)
    try:
        files = reproduce(Said(said.experiment, said.out, said.seeds, said.samples, said.batch, said.minutes, options))
    except DivergedError as error:
        return error_line(str(error), 1)
    except Interrupted as error:
        print(f"{error}: the same command goes on")
        return 128 + error.signum
    print(f"written: {', '.join(map(str, files))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
