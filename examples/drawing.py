"""Draws the README's picture from a trained run:  python examples/drawing.py runs/demo docs/drawing.png"""

import sys

import torch

from fastdraw.runs.checkpoint import load_model
from fastdraw.view import save_strip

run, picture = sys.argv[1:]
model = load_model(run)
torch.manual_seed(1)
with torch.inference_mode():
    _, trajectory = model.sample(6, return_trajectory=True)
save_strip(trajectory, picture, write_size=model.config.write_size, glimpses=8)
