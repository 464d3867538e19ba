"""Draws the README's picture from a trained run:  python examples/drawing.py runs/demo docs/drawing.png"""

import argparse

import torch

from fastdraw.runs.checkpoint import load_model
from fastdraw.view import save_strip

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", help="a run's folder, or a checkpoint's file")
parser.add_argument("picture", help="the PNG to write")
said = parser.parse_args()
model = load_model(said.run)
torch.manual_seed(1)
with torch.inference_mode():
    _, trajectory = model.sample(6, return_trajectory=True)
save_strip(trajectory, said.picture, write_size=model.config.write_size, glimpses=8)
