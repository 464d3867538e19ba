"""The tuning harness without a GPU: the rows it changes, its search with a made-up clock, what it proposes and writes."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("triton", reason="there are no tables without triton")


from benchmarks.tune import __main__ as tune
from benchmarks.tune import rows as tuned
from benchmarks.tune.rows import Subject, Timing
from fastdraw import env
from fastdraw.kernels.triton import piece_tables, tables


class Row(NamedTuple):
    block_b: int
    block_k: int
    num_warps: int
    kept: int = 7


PRESENT = Row(32, 64, 4)


def clock(row: Row) -> Timing:
    """Best at 64 x 128 and 8 warps: every field by itself."""
    slower = sum(abs(v.bit_length() - w.bit_length()) for v, w in zip(row, (64, 128, 8), strict=False))
    return Timing(1e-6 * (1 + 0.1 * slower), registers=100, spills=0)


def test_the_search_finds_the_best_row_one_field_after_the_other():
    trials = tune.search(PRESENT, clock, lambda: 1.0)
    assert trials[0].row == PRESENT
    assert tune.best(trials).row == Row(64, 128, 8)
    # Each trial differs from one before it in one field.
    for number, trial in enumerate(trials[1:], 1):
        assert min(sum(a != b for a, b in zip(trial.row, t.row, strict=True)) for t in trials[:number]) == 1
    assert len({t.row for t in trials}) == len(trials)
    assert all(t.row.kept == 7 for t in trials)


@pytest.mark.parametrize(
    ("other", "chosen"),
    [
        (Timing(0.5e-6, 90, 0), True),
        (Timing(0.99e-6, 90, 0), False),  # no more than noise
        (Timing(0.5e-6, 255, 16), False),  # spills
        (Timing(None, problem="its results are not the present row's"), False),
    ],
)
def test_what_is_chosen(other, chosen):
    trials = [tune.Trial(PRESENT, Timing(1e-6, 80, 0)), tune.Trial(Row(64, 64, 4), other)]
    assert (tune.best(trials) is trials[1]) == chosen


def test_no_time_and_no_present_figure():
    left = iter([1.0, 1.0, 0.0])
    assert len(tune.search(PRESENT, clock, lambda: next(left))) == 3
    (only,) = tune.search(PRESENT, lambda _: Timing(None, problem="OutOfResources"), lambda: 1.0)
    assert tune.best([only]).timing.problem == "OutOfResources"


def test_a_row_is_in_the_table_for_as_long_as_it_is_tried():
    table: dict[Any, Any] = {("cell", "half"): (Row(1, 1, 1), PRESENT)}
    subject = Subject("cell", table, ("cell", "half"), 1, lambda: None)
    with subject.with_row(Row(2, 2, 2)):
        assert table["cell", "half"] == (Row(1, 1, 1), Row(2, 2, 2))
    assert table["cell", "half"] == (Row(1, 1, 1), PRESENT)

    def fails() -> None:
        with subject.with_row(Row(2, 2, 2)):
            raise RuntimeError("while it is tried")

    with pytest.raises(RuntimeError, match="while"):
        fails()
    assert table["cell", "half"] == (Row(1, 1, 1), PRESENT)


@pytest.mark.skipif(env.triton_interpreted(), reason="launches are made for the compiler")
@pytest.mark.parametrize("precision", ["bfloat16", "float32", "tf32"])
def test_every_kernel_of_a_step_has_a_row_that_can_be_changed(precision):
    before = dict(piece_tables.PRODUCT_ROWS), dict(piece_tables.CANVAS_ROWS)
    subjects = tuned.piece_subjects("mnist", None, precision)
    names = {subject.name for subject in subjects}
    expected = {"cell", "latent", "linear", "cell_backward, head", "latent_backward", "input_backward", "canvas"}
    assert expected <= names
    for subject in subjects:
        # The batch of 128 takes the rows for few results.
        changed = subject.present._replace(num_warps=1 if subject.present.num_warps != 1 else 2)
        with subject.with_row(changed):
            assert subject.launch().num_warps == changed.num_warps, subject.name
        assert subject.launch().num_warps == subject.present.num_warps
    assert before == (piece_tables.PRODUCT_ROWS, piece_tables.CANVAS_ROWS)


@pytest.mark.skipif(env.triton_interpreted(), reason="launches are made for the compiler")
def test_the_operators_rows():
    subjects = tuned.glimpse_subjects("svhn", None, "float32")
    assert {"read", "write", "window_grad", "write_grad"} == {s.name for s in subjects}
    assert all(s.table is tables.WINDOW_ROWS for s in subjects)
    launch = tuned.materialised(subjects[0].launch(), "cpu")
    tensors = [v for v in launch.arguments.values() if isinstance(v, torch.Tensor)]
    assert tensors
    assert all(t.device.type == "cpu" and t.isfinite().all() for t in tensors)
    again = [v for v in tuned.materialised(subjects[0].launch(), "cpu").arguments.values() if isinstance(v, torch.Tensor)]
    assert tuned.same(tensors, again)
    assert not tuned.same(tensors, [tensors[0] * 1.01, *tensors[1:]])
    assert not tuned.same(tensors, [tensors[0] * float("nan"), *tensors[1:]])


def test_what_is_proposed_is_printed_and_written_beside_the_prediction(tmp_path, capsys):
    table: dict[Any, Any] = {("cell", "half"): (PRESENT,)}
    subject = Subject("cell", table, ("cell", "half"), 0, lambda: None)
    options = Namespace(
        predict="8 warps: a tenth less", setting="mnist", batch=None, precision="bfloat16", seconds=100.0, out=tmp_path
    )
    assert tune.tune([subject], lambda _: clock, options) == 0
    (path,) = tmp_path.glob("tune-mnist-bfloat16-*.json")
    written = json.loads(path.read_text())
    assert written["predicted"] == "8 warps: a tenth less"
    (kernel,) = written["kernels"]
    assert kernel["best"] == {"block_b": 64, "block_k": 128, "num_warps": 8, "kept": 7}
    assert kernel["gain"] == pytest.approx(1 - 1 / 1.3)
    assert len(kernel["trials"]) > 5
    shown = capsys.readouterr().out
    assert "proposed for ('cell', 'half'): Row(block_b=64, block_k=128, num_warps=8, kept=7)" in shown
    assert "100 registers, 0 spilled" in shown
    assert table["cell", "half"] == (PRESENT,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_it_needs_a_device_and_a_prediction(capsys):
    assert tune.main(["--predict", "nothing"]) == 2
    assert "CUDA device" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        tune.main([])
    assert ended.value.code == 2
