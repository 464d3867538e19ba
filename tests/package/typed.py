"""What type checkers see of the public names; mypy reads this, nothing runs it. An ignore without need is an error."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import assert_type

import fastdraw
from fastdraw import ClassifierConfig, ClassifierOutput, DRAWConfig, DRAWOutput, Trajectory

model = fastdraw.DRAW.from_config(fastdraw.presets["mnist"])
x = torch.rand(2, 1, 28, 28)
assert_type(model, fastdraw.DRAW)
assert_type(model.config, DRAWConfig)
assert_type(model.config.glimpses, int)
assert_type(model(x), DRAWOutput)
assert_type(model(x).loss, Tensor)
assert_type(model.sample(3), Tensor)
assert_type(model.sample(3, None, True), tuple[Tensor, Trajectory])
assert_type(model.sample(3, return_trajectory=True), tuple[Tensor, Trajectory])
assert_type(model.reconstruct(x), Tensor)
assert_type(model.reconstruct(x, return_trajectory=True), tuple[Tensor, Trajectory])
assert_type(fastdraw.DRAW.from_pretrained("model"), fastdraw.DRAW)
assert_type(fastdraw.GaussianGlimpse(3)(x, torch.zeros(2, 5)), Tensor)
assert_type(fastdraw.crop(x, torch.zeros(2, 4), (3, 4), sigma=0.29), Tensor)
assert_type(fastdraw.paste(x, torch.zeros(2, 4), (28, 28)), Tensor)
assert_type(fastdraw.crop(x, fastdraw.concentric_boxes(torch.zeros(2, 4), (1, 3)), 3), Tensor)
assert_type(fastdraw.Pyramid(x).crop(torch.zeros(3, 4), 3, torch.tensor([0, 1, 1])), Tensor)
classifier = fastdraw.DRAWClassifier.from_config(fastdraw.classifier_presets["cluttered-mnist"])
assert_type(classifier.config, ClassifierConfig)
assert_type(classifier(x), ClassifierOutput)
assert_type(classifier.predict(x), Tensor)

# Typos.
_ = model(x).lost  # type: ignore[attr-defined]
_ = model.config.glimpse  # type: ignore[attr-defined]
model(x, noises=None)  # type: ignore[call-arg]
model.sample(n=3, trajectory=True)  # type: ignore[call-overload]
model.smaple(3)  # type: ignore[operator]
fastdraw.DRAW(glimpse=3)  # type: ignore[call-arg]
fastdraw.DRAWConfig(hidden=3)  # type: ignore[call-arg]
