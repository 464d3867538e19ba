"""The options of training: each has its default, unit and sentence here, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from fastdraw.checks import check_size, expected
from fastdraw.config import DRAWConfig, presets

DATA, MODEL, OPTIMISATION, OUTPUT = "Data", "Model", "Optimisation", "Output"


@dataclass(frozen=True)
class Recipe:
    """What a preset sets: the model, and the options that it needs to train well."""

    config: DRAWConfig
    epochs: int
    batch_size: int = 100
    learning_rate: float | None = None
    kl_warmup: int | None = None
    evaluate_every: int = 1

    def rate(self, glimpses: int) -> float:
        """The recipe's own learning rate; otherwise that of the public reproductions, which falls with long recurrences."""
        return self.learning_rate or (1e-3 if glimpses <= 32 else 3e-4)

    def warmup(self, glimpses: int) -> int:
        """The recipe's own warm-up; otherwise a few times the steps that latents took to come into use at `rate`."""
        return self.kl_warmup or (500 if glimpses <= 32 else 2000)


RECIPES: dict[str, Recipe] = {name: Recipe(config, epochs=100) for name, config in presets.items()}
#: Small enough to learn scikit-learn's 1,797 digits in a minute or two on two cores.
RECIPES["digits"] = Recipe(
    DRAWConfig((1, 28, 28), glimpses=12, hidden_size=128, latent_size=16, read_size=5, write_size=5),
    epochs=130,
    batch_size=50,
    learning_rate=4e-3,
    kl_warmup=300,
    evaluate_every=10,
)


def option(default: Any, panel: str, help: str, shown: str | None = None, metavar: str | None = None) -> Any:
    """One option. `shown` is what help gives as the default where the default is found later."""
    return field(default=default, metadata={"panel": panel, "help": help, "shown": shown, "metavar": metavar})


@dataclass(frozen=True)
class TrainOptions:
    """What `fastdraw train` is told. None means: what the preset or the machine says. See each field's text in `--help`.

    Raises ValueError or TypeError naming the option, what was expected and what came.
    """

    data: str = option(
        "digits",
        DATA,
        "What to train on: digits (1,797 real ones, no download), mnist, binarized-mnist, or the path of an .npz file, an idx "
        "file or a folder of images.",
        metavar="NAME|PATH",
    )
    data_dir: str | None = option(
        None, DATA, "Folder in which data sets lie already, so that nothing is downloaded.", "$FASTDRAW_DATA", "FOLDER"
    )
    image_size: int | None = option(
        None,
        DATA,
        "Height and width to bring all images to, in pixels, by their largest middle square.",
        "as they are",
        "PIXELS",
    )
    binarize: str = option(
        "auto",
        DATA,
        "dynamic: draw each pixel as 0 or 1 with its intensity as probability, anew at each step. none: intensities as they "
        "are. auto: dynamic for one channel, none for colour.",
        metavar="auto|none|dynamic",
    )
    preset: str | None = option(
        None,
        MODEL,
        f"Model and settings to start from: {', '.join(RECIPES)}. The image size always comes from the data.",
        "digits for --data digits, otherwise mnist",
        "NAME",
    )
    glimpses: int | None = option(None, MODEL, "Steps in which an image is read and drawn (T).", "the preset's", "STEPS")
    hidden_size: int | None = option(None, MODEL, "Units of each of the two LSTMs.", "the preset's", "UNITS")
    latent_size: int | None = option(None, MODEL, "Latent dimensions per glimpse.", "the preset's", "DIMENSIONS")
    read_size: str | None = option(
        None, MODEL, "Filters along each side of the read window; none: no attention there.", "the preset's", "FILTERS|none"
    )
    write_size: str | None = option(
        None, MODEL, "Filters along each side of the write window; none: no attention there.", "the preset's", "FILTERS|none"
    )
    initial_canvas: str = option(
        "mean",
        MODEL,
        "What the learned first canvas starts as. mean: the training set's mean image. zero: grey.",
        metavar="mean|zero",
    )
    epochs: int | None = option(
        None,
        OPTIMISATION,
        "Passes over the training images, in all.",
        ", ".join(f"{r.epochs} for {n}" for n, r in RECIPES.items() if n in ("mnist", "digits")),
        "EPOCHS",
    )
    steps: int | None = option(
        None, OPTIMISATION, "Stop after this many steps, even if epochs are left.", "no such limit", "STEPS"
    )
    batch_size: int | None = option(
        None, OPTIMISATION, "Images per step.", f"100, {RECIPES['digits'].batch_size} for digits", "IMAGES"
    )
    learning_rate: float | None = option(
        None,
        OPTIMISATION,
        "Adam's step size, without unit. Its betas are 0.9 and 0.999.",
        f"0.001 up to 32 glimpses, 0.0003 above; {RECIPES['digits'].learning_rate} for digits",
        "RATE",
    )
    kl_warmup: int | None = option(
        None,
        OPTIMISATION,
        "Steps in which the KL's weight in the loss rises from 0 to 1, so that latents come into use; 0: none. Metrics always "
        "count the whole KL.",
        f"500 up to 32 glimpses, 2000 above; {RECIPES['digits'].kl_warmup} for digits",
        "STEPS",
    )
    clip: float = option(
        10.0,
        OPTIMISATION,
        "Longest gradient: the norm of all together, in nats per image and unit of weight; longer ones are scaled down.",
        metavar="NORM",
    )
    seed: int = option(0, OPTIMISATION, "Decides weights, order, noise and binarisation.", metavar="NUMBER")
    device: str = option(
        "auto", OPTIMISATION, "Where to train; auto: on CUDA where there is a device.", metavar="auto|cpu|cuda"
    )
    precision: str = option(
        "fp32",
        OPTIMISATION,
        "fp32, or bf16: matrix products in bfloat16 by autocast, everything else in float32.",
        metavar="fp32|bf16",
    )
    threads: int | None = option(None, OPTIMISATION, "CPU threads.", "one per core", "THREADS")
    out: str | None = option(None, OUTPUT, "Folder that everything is written to.", "runs/ and the data's name", "FOLDER")
    resume: bool = option(
        False,
        OUTPUT,
        "Go on from the checkpoint in --out, with its options: bit for bit on the CPU. --epochs and --steps may be raised.",
    )
    overwrite: bool = option(False, OUTPUT, "Delete the run that --out holds and begin anew.")
    checkpoint_every: int = option(
        200, OUTPUT, "Steps between checkpoints; each evaluation and an interruption write one too.", metavar="STEPS"
    )
    log_every: int = option(50, OUTPUT, "Steps averaged into one line of metrics.", metavar="STEPS")
    evaluate_every: int | None = option(
        None,
        OUTPUT,
        "Epochs between evaluations on the validation images, each with a fresh samples.png.",
        f"1, {RECIPES['digits'].evaluate_every} for digits",
        "EPOCHS",
    )
    eval_batch: int = option(500, OUTPUT, "Images evaluated at once.", metavar="IMAGES")
    samples: int = option(64, OUTPUT, "Images in samples.png.", metavar="IMAGES")

    def __post_init__(self) -> None:
        for name in (
            "image_size",
            "glimpses",
            "hidden_size",
            "latent_size",
            "epochs",
            "steps",
            "batch_size",
            "threads",
            "evaluate_every",
        ):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        for name in ("checkpoint_every", "log_every", "eval_batch", "samples"):
            check_size(name, getattr(self, name))
        check_size("seed", self.seed, least=0)
        if self.kl_warmup is not None:
            check_size("kl_warmup", self.kl_warmup, least=0)
        for name in ("read_size", "write_size"):
            object.__setattr__(self, name, _check_filters(name, getattr(self, name)))
        for name in ("clip", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise expected(name, "a number above 0", value)
        for name in ("binarize", "initial_canvas", "device", "precision"):
            _check_choice(name, getattr(self, name), METAVARS[name].split("|"))
        if self.preset is not None:
            _check_choice("preset", self.preset, RECIPES)
        if self.resume and self.overwrite:
            raise ValueError("overwrite: expected no --resume beside it: one deletes the run that the other continues")

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.preset or ("digits" if self.data == "digits" else "mnist")]

    def config(self, image_shape: tuple[int, int, int]) -> DRAWConfig:
        """The model for images of this shape: the preset's, and what was said otherwise."""
        said: dict[str, Any] = {name: getattr(self, name) for name in ("image_size", "glimpses", "hidden_size", "latent_size")}
        said = {name: value for name, value in said.items() if value is not None}
        for name in ("read_size", "write_size"):
            if (text := getattr(self, name)) is not None:
                said[name] = None if text == "none" else int(text)
        return replace(self.recipe.config, image_shape=image_shape, **said)

    def resolved(self, image_shape: tuple[int, int, int], threads: int) -> TrainOptions:
        """The same options with every choice made, so that they can be compared and repeated."""
        recipe, config = self.recipe, self.config(image_shape)
        return replace(
            self,
            preset=next(name for name, r in RECIPES.items() if r is recipe),
            glimpses=config.glimpses,
            hidden_size=config.hidden_size,
            latent_size=config.latent_size,
            read_size=str(config.read_size or "none"),
            write_size=str(config.write_size or "none"),
            binarize=("dynamic" if image_shape[0] == 1 else "none") if self.binarize == "auto" else self.binarize,
            epochs=self.epochs or recipe.epochs,
            batch_size=self.batch_size or recipe.batch_size,
            learning_rate=self.learning_rate or recipe.rate(config.glimpses),
            kl_warmup=recipe.warmup(config.glimpses) if self.kl_warmup is None else self.kl_warmup,
            evaluate_every=self.evaluate_every or recipe.evaluate_every,
            threads=self.threads or threads,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `TrainOptions(**d)` gives the options back."""
        return asdict(self)


DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(TrainOptions) if f.default is not MISSING}
METAVARS: dict[str, str] = {f.name: f.metadata["metavar"] for f in fields(TrainOptions)}

#: What may change when a run goes on: where and how far, not what it computes. Data may move; its contents are compared.
MAY_CHANGE = frozenset(
    "data data_dir epochs steps device threads out resume overwrite checkpoint_every log_every evaluate_every samples".split()  # noqa: SIM905
)


def continued(said: TrainOptions, saved: TrainOptions, explicit: Collection[str] | None = None) -> TrainOptions:
    """The options of a run that goes on: the checkpoint's `saved` ones, and of `said` what may change.

    `explicit` names the fields of `said` that were given; None: those that differ from the defaults.
    Raises ValueError for a given option that would change what the run computes.
    """
    given = {name for name in DEFAULTS if getattr(said, name) != DEFAULTS[name]} if explicit is None else set(explicit)
    for name in sorted(given - MAY_CHANGE):
        if getattr(said, name) != getattr(saved, name):
            raise ValueError(
                f"{name}: expected {getattr(saved, name)}, as the run to resume was started with, got {getattr(said, name)}"
            )
    changes = {name: getattr(said, name) for name in given & MAY_CHANGE}
    if "epochs" in given and "steps" not in given:
        # More epochs were asked for: an earlier limit on steps would hide them.
        changes["steps"] = None
    return replace(saved, **{**changes, "out": said.out, "resume": True, "overwrite": False})


def _check_filters(name: str, value: Any) -> str | None:
    if value is None or value == "none":
        return value
    try:
        return str(check_size(name, int(value)))
    except ValueError:
        raise expected(name, "a number of at least 1, or none", value) from None


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise expected(name, f"one of {', '.join(choices)}", value)
