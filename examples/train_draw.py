"""A training loop of one's own with fastdraw.DRAW in it:  python examples/train_draw.py [steps]

On 1,437 handwritten digits; needs pip install "fastdraw-torch[train]" for the images. Saves the model to the folder
draw-digits.
"""

import argparse

import torch

import fastdraw
from fastdraw import data

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("steps", nargs="?", type=int, default=1000, help="training steps; default: %(default)s")
steps = parser.parse_args().steps
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
splits = data.load("digits")
images = splits.train.to(device)  # uint8 [n, 1, 28, 28]

model = fastdraw.DRAW((1, 28, 28), glimpses=12, hidden_size=128, latent_size=16, read_size=5, write_size=5).to(device)
with torch.no_grad():
    model.initial_canvas.copy_(torch.logit(data.images(images).mean(0), eps=0.01))  # drawing starts from the mean image
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
for step in range(steps):
    x = data.binarize(images[torch.randint(len(images), (50,), device=device)])
    out = model(x)
    # The KL's weight rises at first, so that the latents come into use; from then on the loss is out.loss.
    loss = (out.reconstruction + min(1.0, step / 300) * out.kl.sum(0)).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    if step % 100 == 0 or step == steps - 1:
        print(f"step {step}: {out.loss.item():.1f} nats, of which KL {out.kl.sum(0).mean().item():.1f}")

with torch.inference_mode():
    held_out = data.binarize(splits.test.to(device))
    print(f"test: {model(held_out).loss.item():.1f} nats")
    samples = model.sample(16)  # [16, 1, 28, 28] in [0, 1]
model.save_pretrained("draw-digits")  # fastdraw.DRAW.from_pretrained("draw-digits") loads it
