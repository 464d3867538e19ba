"""What one process of many does for its share of a step: order, binarisation and noise, beside the step itself.

`python -m benchmarks.processes` makes one process of 1, 8, 64 and 1,024 by torch's fake process group, which answers at once,
so no network's time is in the figures; the paper's MNIST setting with 128 images a process. Prints a line for each: processor
time (milliseconds, one thread) of batch and noise, of the step without them, their share, and the process's largest memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks import checkout

checkout.activate()

SIZES = (1, 8, 64, 1024)
SHARE = 128


def resident() -> float:
    """MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def measure(size: int, turns: int) -> dict[str, float]:
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    import fastdraw
    from fastdraw.runs.parallel import Processes
    from fastdraw.runs.randomness import normal_rows
    from fastdraw.train.batches import Batches

    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=size // 2, world_size=size)
    processes = Processes(dist.group.WORLD)
    batch, cpu = SHARE * size, torch.device("cpu")
    # As many as the largest batch has; every image is the same memory, since it is the drawing that is timed.
    images = torch.randint(0, 256, (1, 1, 28, 28), dtype=torch.uint8).expand(SHARE * max(SIZES) * 4, -1, -1, -1)
    batches = Batches(images, None, None, batch, True, 0, cpu, processes)
    model = fastdraw.DRAW.from_config(fastdraw.presets["mnist"])
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step = fastdraw.GraphedStep(model, optimizer, batches(0).images, clip=10.0, process_group=processes.group)
    shape = model.config.glimpses, model.config.latent_size
    drawing, stepping = [], []
    for turn in range(turns + 2):
        began = time.process_time()
        x = batches(turn).images
        e = normal_rows(0, "noise", turn, processes.rows(batch), batch, shape, cpu).transpose(0, 1)
        drawn = time.process_time()
        step(x, e)
        # The first two fill caches and choose libraries.
        if turn >= 2:
            drawing.append(drawn - began)
            stepping.append(time.process_time() - drawn)
    dist.destroy_process_group()
    times = 1e3 * statistics.median(drawing), 1e3 * statistics.median(stepping)
    return {
        "drawing": times[0],
        "step": times[1],
        "share": times[0] / sum(times),
        "resident": resident(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20, help="steps that are timed (default 20)")
    parser.add_argument("--of", type=int, help="measure one process of so many, and print JSON")
    said = parser.parse_args()
    if said.of:
        print(json.dumps(measure(said.of, said.turns)))
        return
    for size in SIZES:
        # Each in a process of its own, for its memory.
        command = [sys.executable, "-m", "benchmarks.processes", "--of", str(size), "--turns", str(said.turns)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"one of {size:>5}: batch and noise {found['drawing']:.2f} ms, step {found['step']:.1f} ms, "
            f"share {100 * found['share']:.1f} %, resident at most {found['resident']:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
