"""The options of training: each has its default, unit and sentence here, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from fastdraw.config import DRAWConfig
from fastdraw.files import expanded
from fastdraw.runs.options import BINARIZE, CHECKS, PRECISIONS, check_choice, check_kind, option
from fastdraw.scalars import check_size, expected
from fastdraw.train.recipes import DIGITS, FEW, LONG, RECIPES, SHORT, Recipe, choose
from fastdraw.train.values import SHAPES, check_canvas, check_filters, check_resume

if TYPE_CHECKING:
    from fastdraw.runs.kinds import Config

DATA, MODEL, OPTIMISATION, MACHINE, OUTPUT = "Data", "Model", "Optimisation", "Machine", "Output"


@dataclass(frozen=True)
class TrainOptions:
    """What `fastdraw train` is told. None means: what the preset or the machine says. See each field's text in `--help`.

    Raises ValueError or TypeError naming the option, what was expected and what came.
    """

    data: str = option(
        "digits",
        DATA,
        "What to train on: digits (1,797 real ones, no download), mnist, binarized-mnist, two-digits, cluttered-mnist, "
        "cluttered-mnist-60, svhn, svhn-extra, cifar10, omniglot, the path of an .npz file, an idx file or a folder of "
        "images, or hf:OWNER/NAME of the Hugging Face hub.",
        metavar="NAME|PATH",
    )
    data_dir: str | None = option(
        None, DATA, "Folder in which data sets lie already, so that nothing is downloaded.", "$FASTDRAW_DATA", "FOLDER"
    )
    image_size: str | None = option(
        None,
        DATA,
        "Height and width to bring all images to, in pixels, by their largest middle part of that form: 64, or 48x64.",
        "as they are",
        "PIXELS|HEIGHTxWIDTH",
    )
    skip_bad: bool = option(
        False, DATA, "Leave out files of a folder that cannot be read; otherwise they are named, all at once."
    )
    binarize: str = option(
        "auto",
        DATA,
        "dynamic: draw each pixel as 0 or 1 with its intensity as probability, anew at each step. none: intensities as they "
        "are. auto: dynamic where images of one channel are drawn, otherwise none.",
        metavar="|".join(BINARIZE),
    )
    task: str | None = option(
        None,
        MODEL,
        "draw: images, by DRAW. classify: tell their classes, by the paper's classifier; error counts then, in percent.",
        "the preset's",
        "draw|classify",
    )
    preset: str | None = option(
        None,
        MODEL,
        f"Model and settings to start from: {', '.join(RECIPES)}. The image size always comes from the data.",
        "the one named as the data; otherwise mnist, or cluttered-mnist to classify",
        "NAME",
    )
    conditional: bool = option(False, MODEL, "Give DRAW the class of each image, to draw images of a chosen class later.")
    glimpses: int | None = option(None, MODEL, "Steps in which an image is read and drawn (T).", "the preset's", "STEPS")
    hidden_size: int | None = option(None, MODEL, "Units of each LSTM.", "the preset's", "UNITS")
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
        "What the learned first canvas starts as. mean: the training set's mean image. zero: grey. A number: that logit "
        "everywhere, -6 for black, say.",
        metavar="mean|zero|LOGIT",
    )
    weight_std: float | None = option(
        None,
        MODEL,
        "Standard deviation of all new weights; windows' biases stay as they are.",
        "by each layer's inputs",
        "NUMBER",
    )
    forget_bias: float = option(0.0, MODEL, "What the bias of new LSTMs' forget gates starts as.", metavar="NUMBER")
    epochs: int | None = option(
        None,
        OPTIMISATION,
        "Passes over the training images, in all.",
        f"100, {RECIPES['digits'].epochs} for digits",
        "EPOCHS",
    )
    steps: int | None = option(
        None, OPTIMISATION, "Stop after this many steps, even if epochs are left.", "no such limit", "STEPS"
    )
    batch_size: int | None = option(
        None,
        OPTIMISATION,
        "Images per step, of all processes together.",
        f"{SHORT.batch_size} up to {FEW} glimpses, 100 above and for svhn; {DIGITS.batch_size} for digits; 128 to classify",
        "IMAGES",
    )
    learning_rate: float | None = option(
        None,
        OPTIMISATION,
        "Adam's step size, without unit. Its betas are 0.9 and 0.999.",
        f"{SHORT.learning_rate} up to {FEW} glimpses, 0.0003 above and for svhn; {DIGITS.learning_rate} for digits; "
        "to classify 0.001, at 60x60 0.002",
        "RATE",
    )
    schedule: str | None = option(
        None,
        OPTIMISATION,
        "How the learning rate falls over the run, to 0: linear or cosine; to a tenth after half of the steps and a hundredth "
        "after three quarters: step; not at all: constant.",
        "constant, cosine to classify",
        "|".join(SHAPES),
    )
    warmup_steps: int | None = option(
        None,
        OPTIMISATION,
        "Steps in which the learning rate rises first; 0: none.",
        f"{SHORT.warmup_steps} up to {FEW} glimpses; none above, for svhn, digits, and to classify",
        "STEPS",
    )
    kl_warmup: int | None = option(
        None,
        OPTIMISATION,
        "Steps in which the KL's weight in the loss rises from 0 to 1, so that latents come into use; 0: none. Metrics always "
        "count the whole KL.",
        f"{SHORT.kl_warmup} up to {FEW} glimpses, {LONG.kl_warmup} above; 500 for svhn; {DIGITS.kl_warmup} for digits",
        "STEPS",
    )
    clip: float | None = option(
        None,
        OPTIMISATION,
        "Longest gradient: the norm of all together, in nats per image and unit of weight; longer ones are scaled down.",
        "10, 1 to classify",
        "NORM",
    )
    seed: int = option(0, OPTIMISATION, "Seed of weights, order, noise and binarisation.", metavar="NUMBER")
    ema: float | None = option(
        None,
        OPTIMISATION,
        "Keep a moving average of the weights, which forgets all but this share of itself at each step (0.999, say), and "
        "evaluate, draw and load that; 0: none.",
        f"{SHORT.ema} up to {FEW} glimpses; none above, for svhn, digits, and to classify",
        "DECAY",
    )
    patience: int | None = option(
        None,
        OPTIMISATION,
        "Stop after so many evaluations without better nats (or error) on the validation images. The best weights are kept in "
        "best.safetensors, and tested.",
        "train to the end",
        "EVALUATIONS",
    )
    device: str = option("auto", MACHINE, "Where to train; auto: on CUDA where there is a device.", metavar="auto|cpu|cuda")
    precision: str = option(
        "fp32",
        MACHINE,
        "Precision of matrix products: fp32; tf32 (CUDA); or bf16, by autocast. Everything else is float32.",
        metavar="|".join(PRECISIONS),
    )
    accumulate: int = option(
        1,
        MACHINE,
        "Parts that a batch is computed in, one after the other: less memory, the same gradients.",
        metavar="PARTS",
    )
    threads: int | None = option(None, MACHINE, "CPU threads of each process.", "one per core", "THREADS")
    deterministic: bool = option(
        False, MACHINE, "Refuse what could give other bits from the same input, on CUDA too; runs on the CPU repeat anyhow."
    )
    out: str | None = option(None, OUTPUT, "Folder that everything is written to.", "runs/ and the data's name", "FOLDER")
    # True, False or auto; a command line says yes, no or auto, and yes may be left out.
    resume: bool | str = option(
        False,
        OUTPUT,
        "Go on from the checkpoint in --out, with its options: bit for bit on the CPU. --epochs and --steps may be raised; a "
        "schedule then covers the new length. auto: go on where there is one, and begin where there is none, so that one "
        "command is right for a first start, a requeued job and torchrun's restarts.",
        "no; alone: yes",
        "[yes|no|auto]",
    )
    overwrite: bool = option(False, OUTPUT, "Delete the run that --out holds and begin anew.")
    checkpoint_every: int = option(
        200, OUTPUT, "Steps between checkpoints; each evaluation and an interruption write one too.", metavar="STEPS"
    )
    log_every: int = option(50, OUTPUT, "Steps averaged into one line of metrics.", metavar="STEPS")
    minutes: float | None = option(
        None,
        OUTPUT,
        "Stop after so many minutes of this call, with a checkpoint to --resume from.",
        "no such limit",
        "MINUTES",
    )
    skip_test: bool = option(
        False,
        OUTPUT,
        "Leave the test images alone at the end: for runs that settings are chosen by, on the validation images.",
    )
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
        for name in DEFAULTS:
            object.__setattr__(self, name, check_option(name, getattr(self, name)))
        for name in ("clip", "learning_rate", "weight_std", "minutes"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise expected(name, "a number above 0", value)
        if not math.isfinite(self.forget_bias):
            raise expected("forget_bias", "a finite number", self.forget_bias)
        if self.ema is not None and not 0 <= self.ema < 1:
            raise expected("ema", "a number of at least 0 and below 1", self.ema)
        if self.preset is not None:
            check_choice("preset", self.preset, RECIPES)
            if self.task not in (None, self.recipe.task):
                raise expected("task", f"{self.recipe.task}, which the preset {self.preset} is for", self.task)
        if self.recipe.task == "classify":
            for name in ("latent_size", "write_size", "kl_warmup", "conditional"):
                if getattr(self, name):
                    raise expected(name, "no such option with --task classify, which draws nothing", getattr(self, name))
            if self.read_size == "none":
                raise expected("read_size", "a number with --task classify, which has no other input", self.read_size)
        if self.resume and self.overwrite:
            raise ValueError("overwrite: expected no --resume beside it: one deletes the run that the other continues")

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.preset or choose(self.data, self.task)]

    @property
    def needs_labels(self) -> bool:
        return self.conditional or self.recipe.task == "classify"

    def config(self, image_shape: tuple[int, int, int], num_classes: int | None = None) -> Config:
        """The model for images of this shape (and of so many classes): the preset's, and what was said otherwise."""
        said: dict[str, Any] = {name: getattr(self, name) for name in ("glimpses", "hidden_size", "latent_size")}
        said = {name: value for name, value in said.items() if value is not None}
        for name in ("read_size", "write_size"):
            if (text := getattr(self, name)) is not None:
                said[name] = None if text == "none" else int(text)
        if num_classes is not None:
            said["num_classes"] = num_classes
        return replace(self.recipe.config, image_shape=image_shape, **said)

    def resolved(self, image_shape: tuple[int, int, int], threads: int) -> TrainOptions:
        """The same options with every choice made, so that they can be compared and repeated."""
        recipe, config = self.recipe, self.config(image_shape)
        by_recipe = recipe.settings(config.glimpses)
        out = replace(
            self,
            task=recipe.task,
            preset=next(name for name, r in RECIPES.items() if r is recipe),
            glimpses=config.glimpses,
            hidden_size=config.hidden_size,
            read_size=str(config.read_size or "none"),
            binarize="none" if self.binarize == "auto" else self.binarize,
            epochs=self.epochs or recipe.epochs,
            batch_size=self.batch_size or by_recipe.batch_size,
            learning_rate=self.learning_rate or by_recipe.learning_rate,
            warmup_steps=by_recipe.warmup_steps if self.warmup_steps is None else self.warmup_steps,
            ema=by_recipe.ema if self.ema is None else self.ema,
            clip=self.clip or recipe.clip,
            schedule=self.schedule or recipe.schedule,
            evaluate_every=self.evaluate_every or recipe.evaluate_every,
            threads=self.threads or threads,
        )
        if not isinstance(config, DRAWConfig):
            return out
        return replace(
            out,
            latent_size=config.latent_size,
            write_size=str(config.write_size or "none"),
            binarize="dynamic" if self.binarize == "auto" and image_shape[0] == 1 else out.binarize,
            kl_warmup=by_recipe.kl_warmup if self.kl_warmup is None else self.kl_warmup,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `TrainOptions(**d)` gives the options back."""
        return asdict(self)


#: Options of training alone that are whole numbers.
WHOLE = (
    *("glimpses", "hidden_size", "latent_size", "epochs", "steps", "batch_size", "kl_warmup", "warmup_steps"),
    *("patience", "accumulate", "threads", "checkpoint_every", "log_every", "evaluate_every", "samples"),
)
#: Threads, and images in one picture.
MOST = 1 << 20
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(TrainOptions) if f.default is not MISSING}
#: Those of text, yes or no, and numbers that need not be whole.
KINDS: dict[str, type] = {
    "preset": str,
    **dict.fromkeys(("conditional", "deterministic", "overwrite", "skip_test"), bool),
    **dict.fromkeys(("weight_std", "forget_bias", "learning_rate", "clip", "ema", "minutes"), float),
}
PATHS = ("data", "data_dir", "out")
METAVARS: dict[str, str] = {f.name: f.metadata["metavar"] for f in fields(TrainOptions)}


def check_option(name: str, value: Any) -> Any:
    """The value of one option, whatever the others are. Raises ValueError or TypeError naming it."""
    if value is None and DEFAULTS[name] is None:
        return None
    if name in PATHS:
        return expanded(check_kind(name, value, str))
    if name in CHECKS:
        return CHECKS[name](value)
    if name in WHOLE:
        value = check_size(name, value, least=0 if name in ("kl_warmup", "warmup_steps") else 1)
        if name in ("threads", "samples") and value > MOST:
            raise expected(name, f"at most {MOST:,}", value)
        return value
    if name in KINDS:
        return check_kind(name, value, KINDS[name])
    if name in ("read_size", "write_size"):
        return check_filters(name, value)
    if name == "resume":
        return check_resume(value)
    if name == "initial_canvas":
        check_canvas(value)
    else:
        check_choice(name, value, METAVARS[name].split("|"))
    return value
