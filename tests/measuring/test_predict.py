"""The model of time (benchmarks/predict): it reads machine code, follows loops to their ends, and knows what takes longer."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch

pytest.importorskip("triton", reason="there is nothing to compile without triton")
import triton
import triton.language as tl

from benchmarks.predict import __main__ as command
from benchmarks.predict.assumptions import CHIP
from benchmarks.predict.control import path
from benchmarks.predict.machine_code import compiled
from benchmarks.predict.recorded import Setting, Torch, recorded
from benchmarks.predict.timing import arguments_at, predicted
from fastdraw import env
from fastdraw.kernels.triton.launch import Launch
from fastdraw.kernels.triton.linear import linear_launch

pytestmark = pytest.mark.skipif(env.triton_interpreted(), reason="a process that runs Triton's interpreter has no compiler")


def meta(*sizes, dtype=torch.bfloat16):
    return torch.empty(sizes, dtype=dtype, device="meta")


def linear(depth, batch=64):
    launch = linear_launch(meta(batch, depth), meta(32, depth), meta(32), meta(batch, 32, dtype=torch.float32))
    assert launch is not None
    return launch


@triton.jit(do_not_specialize=["rows"])
def summed_rows(p_rows, p_out, rows, BLOCK: tl.constexpr):
    o = tl.arange(0, BLOCK)
    b_sum = tl.zeros([BLOCK], tl.float32)
    for i in tl.range(0, rows, loop_unroll_factor=1):
        b_sum += tl.exp(tl.load(p_rows + i * BLOCK + o))
    tl.store(p_out + o, b_sum)


def counted(launch):
    """How often one thread carries out each kind of instruction."""
    program = compiled(launch, "sm_90")
    steps = path(program.code, arguments_at(launch, CHIP.parameters_at))
    assert steps.guessed == 0
    return Counter(program.code[step.which].op for step in steps.steps if step.moves)


def test_products_of_a_path_are_those_of_the_sizes():
    # An HMMA of 16 x 8 x 16 by a warp; several warps may make the same one.
    made = []
    for depth in (256, 1024):
        launch = linear(depth)
        made.append(counted(launch)["HMMA"] * launch.num_warps * math.prod(launch.grid))
        assert made[-1] % (64 * 32 * depth / (16 * 8 * 16)) == 0
    assert made[1] == 4 * made[0] > 0


def test_a_loop_ends_where_the_argument_says():
    # The number of rows is no constant of the kernel: it is read from the arguments.
    for rows in (24, 100):
        tensors = {"p_rows": meta(rows, 128, dtype=torch.float32), "p_out": meta(128, dtype=torch.float32)}
        assert counted(Launch(summed_rows, (1,), {**tensors, "rows": rows, "BLOCK": 128}, 4, 1))["MUFU"] == rows


def test_more_work_takes_longer():
    short, long = predicted(linear(256), CHIP), predicted(linear(1024), CHIP)
    assert 0.3 < short.us < long.us < 20
    assert long.megabytes > 2 * short.megabytes
    assert sum(long.waits.values()) == pytest.approx(1)
    # Many more programs than multiprocessors share them or come in rounds.
    full = predicted(linear(256, batch=64 * 1024), CHIP)
    assert full.resident > 1
    assert full.us > 2 * short.us


def test_a_step_is_recorded_whole():
    kinds = {}
    for what in ("forward", "train"):
        items = recorded(Setting("cluttered-mnist", 4, "bfloat16", what))
        kinds[what] = Counter("torch" if isinstance(item, Torch) else item.kernel.fn.__name__ for item in items)
    # Eight glimpses; what the forward pass launches a training step launches too.
    assert kinds["forward"]["read_kernel"] == 8
    ours = [name for name in kinds["forward"] if name != "torch"]
    assert all(kinds["train"][name] >= kinds["forward"][name] for name in ours)
    assert set(kinds["train"]) - set(kinds["forward"])
    # Products of torch's are told with their operations.
    products = [
        item for item in recorded(Setting("cluttered-mnist", 4, "float32")) if isinstance(item, Torch) and item.operations
    ]
    assert products
    assert all(item.dtype == "float32" for item in products)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_products_have_operands_in_the_precision_that_was_asked_for(precision):
    launches = [item for item in recorded(Setting("mnist", 2, precision, "forward")) if not isinstance(item, Torch)]
    operands = {item.arguments["p_weight"].dtype for item in launches if "p_weight" in item.arguments}
    assert operands == {getattr(torch, precision)}


def test_weights_are_cast_together_and_gradients_zeroed_together():
    """Beside the glimpses' own launches: one cast of all weights a pass, not one of each; and no zeroes one by one."""
    names = [item.name for item in recorded(Setting("mnist", 4)) if isinstance(item, Torch)]
    assert names.count("_foreach_copy_") == 3
    assert not {"to", "new_zeros"} & set(names)
    assert len(names) <= 90


def test_command_compares_two_versions(tmp_path, capsys, monkeypatch):
    launch = linear(256)
    monkeypatch.setattr(command, "recorded", lambda asked: [launch, launch, Torch("copy_", 1000)])
    old = tmp_path / "old.json"
    assert command.main(["mnist:128", "--json", str(old)]) == 0
    first = json.loads(old.read_text())["mnist train B=128 bfloat16"]
    assert [row["count"] for row in first["launches"].values()] == [2, 1]
    assert first["us"] == pytest.approx(sum(row["us in all"] for row in first["launches"].values()))
    assert command.main(["mnist:128", "--against", str(old)]) == 0
    assert "before" in capsys.readouterr().out
    with pytest.raises(ValueError, match="model: expected one of"):
        command.main(["nothing:1"])
