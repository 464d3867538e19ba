"""fastdraw.DRAW under Lightning:  python examples/lightning_draw.py [steps]

Needs pip install lightning "fastdraw-torch[train]". Several devices, bf16 and gradient accumulation are the
Trainer's arguments.
"""

import argparse

import lightning
import torch
from torch.utils.data import DataLoader

import fastdraw
from fastdraw import data


class LitDRAW(lightning.LightningModule):
    def __init__(self, mean: torch.Tensor) -> None:
        super().__init__()
        self.model = fastdraw.DRAW((1, 28, 28), glimpses=12, hidden_size=128, latent_size=16, read_size=5, write_size=5)
        with torch.no_grad():
            self.model.initial_canvas.copy_(torch.logit(mean, eps=0.01))  # drawing starts from the mean image

    def training_step(self, x: torch.Tensor, index: int) -> torch.Tensor:
        out = self.model(x)
        self.log("nats", out.loss, prog_bar=True)
        weight = min(1.0, self.global_step / 300)  # of the KL, so that the latents come into use
        return (out.reconstruction + weight * out.kl.sum(0)).mean()

    def validation_step(self, x: torch.Tensor, index: int) -> None:
        self.log("val_nats", self.model(x).loss, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=4e-3)


def loader(images: torch.Tensor, shuffle: bool) -> DataLoader:
    """Batches of 0 and 1, drawn anew each time with the pixels' intensities as probabilities."""
    return DataLoader(images, batch_size=50, shuffle=shuffle, collate_fn=lambda rows: data.binarize(torch.stack(rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=1000, help="training steps; default: %(default)s")
    steps = parser.parse_args().steps
    lightning.seed_everything(0)
    splits = data.load("digits")
    trainer = lightning.Trainer(
        max_steps=steps,
        gradient_clip_val=10.0,
        check_val_every_n_epoch=10,
        logger=False,
        enable_checkpointing=False,
    )
    lit = LitDRAW(data.images(splits.train).mean(0))
    trainer.fit(lit, loader(splits.train, True), loader(splits.validation, False))
    (result,) = trainer.validate(lit, loader(splits.test, False), verbose=False)
    print(f"test: {result['val_nats']:.1f} nats")
