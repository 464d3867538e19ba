"""A step under other choices of the Triton pieces: the choices reach the launchers, and a wrong step is not timed."""

from __future__ import annotations

from contextlib import nullcontext
from unittest import mock

import pytest
import torch

from benchmarks import choices, steps
from fastdraw import env
from fastdraw.config import DRAWConfig

CONFIG = DRAWConfig((1, 9, 7), glimpses=2, hidden_size=16, latent_size=5, read_size=2, write_size=3)


@pytest.mark.skipif(env.triton_interpreted(), reason="launches are made for the compiler")
def test_choices_reach_the_launchers():
    pytest.importorskip("triton", reason="there are no launchers without triton")
    from fastdraw.kernels.triton import aot_pieces, launch, piece_tables

    def fused(batch: int) -> bool:
        with mock.patch.dict(aot_pieces.MODELS, {"mnist": aot_pieces.MODELS["mnist"]._replace(batch=batch)}):
            found = dict(aot_pieces.product_launches("mnist", torch.bfloat16, "ieee"))
        return found["cell_forward"].arguments["FUSED"]

    before = dict(piece_tables.FUSED_LIMIT)
    assert (fused(128), fused(8192)) == (True, False)
    with choices.CHOICES["every product by torch"]():
        assert not fused(128)
    with choices.CHOICES["every product in a kernel"]():
        assert fused(8192)
    assert before == piece_tables.FUSED_LIMIT
    with choices.CHOICES["no dependent launches"](), mock.patch.object(torch.cuda, "is_available", return_value=True):
        assert not launch.dependent()


def test_steps_are_timed_in_turns_and_wrong_ones_are_not(monkeypatch):
    monkeypatch.setattr(choices, "TURNS", 2)
    right = steps._gradients

    def wrong():
        return mock.patch.object(steps, "_gradients", lambda model: [g * 1.01 for g in right(model)])

    rows = choices.measure(CONFIG, 3, "float32", {"as it is": nullcontext, "wrong": wrong, "again": nullcontext})
    assert [row["name"] for row in rows] == ["as it is", "wrong", "again"]
    assert [row["turns"] for row in rows] == [2, 0, 2]
    assert rows[1]["note"].startswith("its results are 0.01")
    shown = choices.lines("a step", rows)
    assert "1.000x" in shown[1]
    assert "not measured: its results" in shown[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_it_needs_a_device(capsys):
    assert choices.main() == 2
    assert "CUDA device" in capsys.readouterr().err
