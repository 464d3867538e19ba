"""Every Triton kernel compiles for every supported device, with none of them present: no spilled register, no block with more
shared memory than the device has, no product that the source does not write, no tf32 where ieee was asked for, and a wait for
the kernel before ahead of all else where there is one (kernels/triton/guards.py). The cases are the launchers' own
(kernels/triton/aot.py).

A process that runs Triton's interpreter has no compiler, so each target is compiled in a process of its own, which is also
told to keep nothing: a stale cache would hide a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="there is nothing to compile without triton")

from fastdraw.kernels.triton import tables
from fastdraw.kernels.triton.read import read_launch

TARGETS = ["sm_80", "sm_90", "sm_100", "gfx942"]

PROGRAM = """
import json, sys
from fastdraw.kernels.triton import aot
results = {}
for name, launch in aot.cases(sys.argv[1]):
    try:
        results[name] = aot.compile_launch(launch, sys.argv[1])._asdict()
    except Exception as error:
        results[name] = {"error": repr(error)[-2000:]}
print(json.dumps({"results": results, "limit": aot.SHARED_LIMIT[sys.argv[1]]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_compiles_within_the_device(target, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    run = subprocess.run([sys.executable, "-c", PROGRAM, target], env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    output = json.loads(run.stdout.splitlines()[-1])
    assert len(output["results"]) >= 40
    failures = {
        name: used
        for name, used in output["results"].items()
        if "error" in used or used["spills"] or used["faults"] or used["shared"] > output["limit"]
    }
    assert not failures, json.dumps(failures, indent=1)


def test_few_large_images_are_shared_by_many_programs():
    image, params, patch = (torch.empty(shape, device="meta") for shape in ((1, 3, 4096, 4096), (1, 5), (88, 1, 3, 64, 64)))
    assert tables.window_parts(3, 4096 * 4096) == 88
    assert read_launch(image, params, patch, 1, "ieee", 88).grid == (3, 88)
    assert tables.window_parts(128, 28 * 28) == 1
    assert tables.window_parts(1000, 4096 * 4096) == 1
