"""The presets of training, one for each experiment of the paper: a model, and the settings that it trains well with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdraw.config import classifier_presets, presets

if TYPE_CHECKING:
    from fastdraw.runs.kinds import Config


@dataclass(frozen=True)
class Settings:
    """How a model is trained. Warm-ups are steps, of the learning rate and of the KL's weight; ema 0: no average."""

    batch_size: int = 100
    learning_rate: float = 3e-4
    warmup_steps: int = 0
    kl_warmup: int = 0
    ema: float = 0.0


#: Up to so many glimpses DRAW is trained by SHORT, above by LONG, where its recipe has no settings of its own.
FEW = 32
#: By a search on validation images, at 8 glimpses and equal CPU time (docs/results.md). At 32 glimpses a run whose rate did
#: not rise first lost its latents within 500 steps; one whose did trained well.
SHORT = Settings(batch_size=50, learning_rate=2e-3, warmup_steps=1000, kl_warmup=1000, ema=0.9995)
#: The rate of the public reproductions; the KL's weight rises over a few times the steps that latents took to come into use.
LONG = Settings(batch_size=100, learning_rate=3e-4, kl_warmup=2000)


@dataclass(frozen=True)
class Recipe:
    """What a preset sets: the model, and the options that it needs to train well. own: settings whatever the glimpses are."""

    config: Config
    epochs: int = 100
    own: Settings | None = None
    evaluate_every: int = 1
    schedule: str = "constant"
    clip: float = 10.0

    @property
    def task(self) -> str:
        from fastdraw.runs.kinds import task_of

        return task_of(self.config)

    def settings(self, glimpses: int) -> Settings:
        return self.own or (SHORT if glimpses <= FEW else LONG)


#: Small enough to learn scikit-learn's 1,797 digits in a minute or two on two cores.
DIGITS = Settings(batch_size=50, learning_rate=4e-3, kl_warmup=300)

RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(presets["mnist"]),
    "mnist-no-attention": Recipe(presets["mnist-no-attention"]),
    # The paper gives no model for two digits. Windows are placed in shares of the image, and a digit has MNIST's 28 pixels:
    # that model can draw them as it stands, with some 32 of its 64 glimpses for each digit.
    "two-digits": Recipe(presets["two-digits"]),
    # 800 units diverge more easily than MNIST's 256: the rate at which a port trained 512 of them on SVHN.
    "svhn": Recipe(presets["svhn"], own=Settings(learning_rate=3e-4, kl_warmup=500)),
    "cifar10": Recipe(presets["cifar10"]),
    # Characters of about MNIST's size and strokes: its model.
    "omniglot": Recipe(presets["omniglot"]),
    # Shorter gradients than DRAW's: with 10 a run stayed at chance for all of 2,000 steps, with 1 none of 13 did.
    "cluttered-mnist": Recipe(
        classifier_presets["cluttered-mnist"], own=Settings(128, learning_rate=1e-3), schedule="cosine", clip=1.0
    ),
    "cluttered-mnist-60": Recipe(
        classifier_presets["cluttered-mnist-60"], own=Settings(128, learning_rate=2e-3), schedule="cosine", clip=1.0
    ),
    "digits": Recipe(presets["digits"], epochs=130, own=DIGITS, evaluate_every=10),
}


#: Data sets whose preset has another name.
NAMED = {"binarized-mnist": "mnist", "svhn-extra": "svhn"}


def choose(data: str, task: str | None) -> str:
    """The preset for images of `data`: its own where it has one for that task, otherwise the paper's first for the task."""
    name = NAMED.get(data, data)
    if name in RECIPES and task in (None, RECIPES[name].task):
        return name
    return "cluttered-mnist" if task == "classify" else "mnist"
