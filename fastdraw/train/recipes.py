"""The presets of training, one for each experiment of the paper: a model, and the settings that it trains well with."""

from __future__ import annotations

from dataclasses import dataclass

from fastdraw.config import classifier_presets, presets
from fastdraw.runs.kinds import Config, task_of


@dataclass(frozen=True)
class Recipe:
    """What a preset sets: the model, and the options that it needs to train well."""

    config: Config
    epochs: int = 100
    batch_size: int = 100
    learning_rate: float | None = None
    kl_warmup: int | None = None
    evaluate_every: int = 1
    schedule: str = "constant"
    clip: float = 10.0

    @property
    def task(self) -> str:
        return task_of(self.config)

    def rate(self, glimpses: int) -> float:
        """The recipe's own learning rate; otherwise that of the public reproductions, which falls with long recurrences."""
        return self.learning_rate or (1e-3 if glimpses <= 32 else 3e-4)

    def warmup(self, glimpses: int) -> int:
        """The recipe's own warm-up; otherwise a few times the steps that latents took to come into use at `rate`."""
        if self.task != "draw":
            return 0
        return self.kl_warmup or (500 if glimpses <= 32 else 2000)


RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(presets["mnist"]),
    "mnist-no-attention": Recipe(presets["mnist-no-attention"]),
    # The paper gives no model for two digits. Windows are placed in shares of the image, and a digit has MNIST's 28 pixels:
    # that model can draw them as it stands, with some 32 of its 64 glimpses for each digit.
    "two-digits": Recipe(presets["two-digits"]),
    # 800 units diverge more easily than MNIST's 256: the rate at which a port trained 512 of them on SVHN.
    "svhn": Recipe(presets["svhn"], learning_rate=3e-4),
    "cifar10": Recipe(presets["cifar10"]),
    # Characters of about MNIST's size and strokes: its model.
    "omniglot": Recipe(presets["omniglot"]),
    # Shorter gradients than DRAW's: with 10 a run stayed at chance for all of 2,000 steps, with 1 none of 13 did.
    "cluttered-mnist": Recipe(
        classifier_presets["cluttered-mnist"], batch_size=128, learning_rate=1e-3, schedule="cosine", clip=1.0
    ),
    "cluttered-mnist-60": Recipe(
        classifier_presets["cluttered-mnist-60"], batch_size=128, learning_rate=2e-3, schedule="cosine", clip=1.0
    ),
    # Small enough to learn scikit-learn's 1,797 digits in a minute or two on two cores.
    "digits": Recipe(
        presets["digits"],
        epochs=130,
        batch_size=50,
        learning_rate=4e-3,
        kl_warmup=300,
        evaluate_every=10,
    ),
}


#: Data sets whose preset has another name.
NAMED = {"binarized-mnist": "mnist", "svhn-extra": "svhn"}


def choose(data: str, task: str | None) -> str:
    """The preset for images of `data`: its own where it has one for that task, otherwise the paper's first for the task."""
    name = NAMED.get(data, data)
    if name in RECIPES and task in (None, RECIPES[name].task):
        return name
    return "cluttered-mnist" if task == "classify" else "mnist"
