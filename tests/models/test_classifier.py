"""What is fastdraw.DRAWClassifier's own: its weights, first window and presets; the rest is in test_models.py."""

from __future__ import annotations

import pytest
import torch

import fastdraw
from fastdraw import ClassifierConfig, DRAWClassifier


def test_state_dict_is_as_documented() -> None:
    model = DRAWClassifier((3, 8, 9), hidden_size=16, read_size=4, num_classes=5)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        "lstm.weight_ih": (64, 48),
        "lstm.weight_hh": (64, 16),
        "lstm.bias_ih": (64,),
        "lstm.bias_hh": (64,),
        "read_attention.weight": (5, 16),
        "read_attention.bias": (5,),
        "output.weight": (5, 16),
        "output.bias": (5,),
        "initial_hidden": (16,),
    }


def test_a_new_models_first_window_spans_the_image() -> None:
    model = DRAWClassifier((1, 60, 50), read_size=12)
    _, windows = model.attend(torch.rand(2, 1, 60, 50))
    first = [float(field[0, 0].detach()) for field in windows]
    assert first == pytest.approx([24.5, 29.5, 59 / 11, 59 / 22, 1.0])
    # One filter sees half the image to either side; filters closer than a pixel are not made narrower than that.
    for size, sigma in ((1, 3.5), (30, 0.5)):
        windows = DRAWClassifier((1, 5, 7), read_size=size).attend(torch.rand(2, 1, 5, 7))[1]
        assert windows.sigma[0].tolist() == pytest.approx([sigma, sigma])


def test_presets_are_the_papers() -> None:
    assert fastdraw.classifier_presets["cluttered-mnist"] == ClassifierConfig((1, 100, 100), 8, 256, 12, 10)
    assert fastdraw.classifier_presets["cluttered-mnist-60"] == ClassifierConfig((1, 60, 60), 8, 256, 12, 10)
    assert DRAWClassifier().config == fastdraw.classifier_presets["cluttered-mnist"]
    assert DRAWClassifier.from_config(ClassifierConfig((1, 6, 5), 2, 4, 3, 7)).output.weight.shape == (7, 4)
