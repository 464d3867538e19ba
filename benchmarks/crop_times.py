"""Crops beside grid_sample by the processor's time of one thread:  python -m benchmarks.crop_times [--turns 9]

For machines that do something else as well: the methods take turns in one process, and what is counted is the time that the
thread had. The least of the turns, as ms and as a share of grid_sample's. benchmarks/test_crops.py measures wall time, proves
what it measures, and wants an idle machine. Nothing is proven here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import fastdraw
from benchmarks.aliasing import Crop, points, slices

Call = Callable[[], object]


def table(calls: dict[str, Call], turns: int) -> None:
    """Prints a row for each; the first is what the others are held against."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            begin = time.thread_time()
            call()
            if turn:
                times[name].append(time.thread_time() - begin)
    # Others on the same cores empty the caches, which makes it more and never less.
    least = {name: min(seconds) for name, seconds in times.items()}
    first = next(iter(least.values()))
    for name, seconds in least.items():
        print(f"| {name} | {1e3 * seconds:.3g} ms | {seconds / first:.2f}x |", flush=True)


def case(batch: int, side: int, windows: int, box: int, size: int, turns: int, others: tuple[str, ...] = ()) -> None:
    torch.manual_seed(0)
    bytes_ = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    image, places = bytes_.float(), torch.rand(batch, windows, 2) * (side - box)
    boxes = torch.cat([places, places + box], -1)
    leaf, weights = boxes.clone().requires_grad_(), torch.randn(batch, windows, 3, size, size)

    def gradient(crop: Crop) -> Call:
        return lambda: torch.autograd.grad(crop(image, leaf, size), leaf, weights)

    print(f"\n{batch}x3x{side}x{side}, {windows} of {size}x{size} over {box} px\n\n| | time | |\n|---|---|---|")
    forward: dict[str, Call] = {"grid_sample": lambda: points(image, boxes, size)}
    if "pyramid" in others:
        begin = time.thread_time()
        pyramid = fastdraw.Pyramid(image)
        built = time.thread_time() - begin
        forward["Pyramid, built before"] = lambda: pyramid.crop(boxes, size)
    forward["crop"] = lambda: fastdraw.crop(image, boxes, size)
    if "bytes" in others:
        forward["crop, uint8"] = lambda: fastdraw.crop(bytes_, boxes, size)
    if "interpolate" in others:
        forward["interpolate(antialias) of slices"] = lambda: slices(image, boxes, size)
    table(forward, turns)
    if "pyramid" in others:
        print(f"| building the pyramid, once | {1e3 * built:.3g} ms | |")
    else:
        table({"grid_sample, to boxes": gradient(points), "crop, to boxes": gradient(fastdraw.crop)}, turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="default: %(default)s")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    case(256, 224, 16, 56, 16, max(turns // 2, 1))
    case(4, 1024, 1, 256, 32, turns, ("interpolate",))
    case(1, 4096, 1, 410, 64, turns, ("bytes",))
    case(1, 4096, 1, 4096, 64, turns, ("pyramid",))


if __name__ == "__main__":
    main()
