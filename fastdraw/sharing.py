"""Models as folders that others can load: `save_pretrained`, `from_pretrained`, and the sampler as a graph of its own.

A folder holds model.safetensors, config.json and a README.md, the names that the Hugging Face hub knows, so that it can be
uploaded as it is. Nothing is pickled. `import fastdraw` imports neither safetensors nor huggingface_hub; the hub's own mixin
would need both, and falls back to pickled files.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fastdraw import checks, pretrained, weights
from fastdraw._version import __version__
from fastdraw.files import write_together
from fastdraw.installed import needs_extra
from fastdraw.text import short

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

Self = TypeVar("Self", bound="Pretrained")


class PretrainedError(ValueError):
    """A folder or file that is no model of fastdraw, or a damaged one. The message names the file and what is wrong."""


class Pretrained(nn.Module):
    """What DRAW and DRAWClassifier share: `save_pretrained` and `from_pretrained`."""

    #: The dataclass whose fields config.json holds.
    config_type: ClassVar[Any]
    config: Any

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model to `folder`, made where it is missing: model.safetensors, config.json, README.md.

        Only what `from_pretrained` accepts is written, and all files are whole and on the disk before one that is there is
        replaced; a README.md that is there stays. Weights that several layers share are written once for each of them. To put
        it on the Hugging Face hub:  huggingface_hub.upload_folder(repo_id="you/model", folder_path=folder)

        Raises ValueError, and leaves what is there, for weights that are not finite, that are not those that the
        configuration means (parametrised, pruned or quantised layers), or that hold no values; TypeError for what is no path,
        OSError where it cannot be written, ModuleNotFoundError without safetensors (pip install "fastdraw-torch[hub]").
        """
        target = Path(weights.check_path("folder", folder))
        save = _optional("safetensors.torch", "save_pretrained").save
        file, about, tensors = target / WEIGHTS, self.config.to_dict(), self.state_dict()
        weights.check(file, tensors, _shapes(file, type(self), self.config), PretrainedError)
        # The configuration goes into both files: a folder with one of each of two models is seen to be that.
        data = save(weights.plain(tensors), {"format": "pt", "fastdraw": json.dumps(about)})
        text = json.dumps({"architectures": [type(self).__name__], "fastdraw_version": __version__, **about}, indent=2)
        files = {file: data, target / CONFIG: (text + "\n").encode()}
        if not (card := target / CARD).exists():
            files[card] = _card(type(self).__name__, about).encode()
        target.mkdir(parents=True, exist_ok=True)
        write_together(files)

    @classmethod
    def from_pretrained(
        cls: type[Self],
        name_or_path: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """The model that `save_pretrained` wrote, on `device`, in eval mode, float32 (float64 where it was saved so).

        name_or_path  a folder; a model that comes with fastdraw ("mnist"), where no folder of that name is here; or one on the
                      Hugging Face hub as "user/model" (pip install "fastdraw-torch[hub]")
        The other arguments go to huggingface_hub.hf_hub_download, and mean nothing for a folder.

        Raises ValueError, naming the file, for files that are missing, damaged, of another model or not finite; nothing that
        a file holds is ever run. TypeError for what is no path or device. ModuleNotFoundError without safetensors, or without
        huggingface_hub for a model on the hub.
        """
        name, place = weights.check_path("name_or_path", name_or_path), weights.check_device("device", device)
        options = {"revision": revision, "cache_dir": cache_dir, "token": token}
        downloads = {**options, "force_download": force_download, "local_files_only": local_files_only}
        config_file, file = _files(name, downloads)
        config = _config(config_file, cls)
        _optional("safetensors.torch", "from_pretrained")
        tensors, metadata = weights.read(file, PretrainedError)
        weights.check(file, tensors, weights.shapes(config_file, cls, config, PretrainedError), PretrainedError)
        # Files of the hub's own mixin say nothing here.
        said = metadata.get("fastdraw")
        if said is not None and _parsed(file, said, cls) != config:
            raise PretrainedError(f"{file}: expected the weights that {CONFIG} describes, got those of {short(said)}")
        double = all(tensor.dtype == torch.float64 for tensor in tensors.values())
        model = cls.from_config(config)  # type: ignore[attr-defined]
        model.to(place, torch.float64 if double else torch.float32).load_state_dict(tensors)
        return model.eval()


class Sampler(nn.Module):
    """`model.sample` as a module of its noise alone, for torch.export and ONNX:  noise [T, n, Z] -> images [n, C, H, W].

        sampler, noise = fastdraw.Sampler(model).eval(), torch.randn(T, 2, Z)
        program = torch.export.export(sampler, (noise,), dynamic_shapes={"noise": {1: torch.export.Dim("n")}})

    A graph exported like this holds fastdraw's operator: it loads where fastdraw is installed, and runs its kernels. Exported
    under `with fastdraw.backend("reference")` it holds PyTorch's own operators alone, T glimpses one after the other; that
    graph also goes through torch.onnx.export. labels [n] are for class-conditional models. Images carry no gradient.
    glimpses: T, where it is to be another than the model's own.
    """

    def __init__(self, model: nn.Module, glimpses: int | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not callable(getattr(model, "sample", None)):
            raise checks.expected("model", "a DRAW, which can sample", model, TypeError)
        self.model = model
        self.glimpses = None if glimpses is None else checks.check_size("glimpses", glimpses)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        checks.check_tensor("noise", noise, "T", "n", "Z")
        sample: Any = self.model.sample
        known: dict[str, Any] = {} if labels is None else {"labels": labels}
        if self.glimpses is not None:
            known["glimpses"] = self.glimpses
        # An exported graph keeps to this: with gradients in mind it would keep every glimpse's states.
        with torch.no_grad():
            return sample(noise.shape[1], noise, **known)


def _files(name: str, downloads: dict[str, Any]) -> tuple[Path, Path]:
    """config.json and model.safetensors, from the folder `name`, from those that come with fastdraw, or from the hub."""
    name = str(pretrained.shipped(name) or name)
    if os.path.isdir(name):
        files = Path(name, CONFIG), Path(name, WEIGHTS)
        for file in files:
            if not file.is_file():
                raise PretrainedError(
                    f"{name}: expected {CONFIG} and {WEIGHTS}, as save_pretrained writes them, got no {file.name}"
                    f" (a run's folder loads with fastdraw.train.load_model){pretrained.hint(name)}"
                )
        return files
    if os.path.exists(name) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        own = ", ".join(pretrained.names())
        raise PretrainedError(
            f"name_or_path: expected a folder, or user/model on the Hugging Face hub, or one of fastdraw's own ({own}), "
            f"got {name!r}{pretrained.hint(name)}"
        )
    hub = _optional("huggingface_hub", f"from_pretrained: {name!r} is no folder here, and a model on the hub")
    try:
        config, file = (hub.hf_hub_download(name, part, library_name="fastdraw", **downloads) for part in (CONFIG, WEIGHTS))
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as error:
        raise PretrainedError(
            f"name_or_path: expected a folder, or a model on the Hugging Face hub, got {name!r}: {short(error)}"
        ) from error
    return Path(config), Path(file)


def _config(file: Path, cls: type[Pretrained]) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise PretrainedError(f"{file}: expected a readable JSON text, got {short(error)}") from error
    return _parsed(file, text, cls)


def _parsed(file: Path, text: str, cls: type[Pretrained]) -> Any:
    """The configuration in a JSON text; other fields than the configuration's are left alone."""
    known = fields(cls.config_type)
    try:
        said = json.loads(text)
        absent = [f.name for f in known if f.name not in said and f.default is not None]
        if absent:
            raise ValueError(f"one without {absent[0]}")
        return cls.config_type(**{f.name: said[f.name] for f in known if f.name in said})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PretrainedError(f"{file}: expected the configuration of a {cls.__name__}, got {short(error)}") from error


def _shapes(file: Path, cls: type[Pretrained], config: Any) -> dict[str, tuple[int, ...]]:
    """What a model of class `cls` is loaded with: by itself, or, where it takes other arguments, by its base."""
    own = next(base for base in cls.__mro__ if "config_type" in base.__dict__)
    try:
        return weights.shapes(file, cls, config, PretrainedError)
    except PretrainedError:
        if cls is own:
            raise
        return weights.shapes(file, own, config, PretrainedError)


def _optional(module: str, purpose: str) -> Any:
    """A module of an optional package, or ModuleNotFoundError that says how to get it."""
    with needs_extra(purpose, "hub"):
        return importlib.import_module(module)


def _card(name: str, about: dict[str, Any]) -> str:
    kind = "image-classification" if name == "DRAWClassifier" else "unconditional-image-generation"
    lines = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return f"""---
library_name: fastdraw
pipeline_tag: {kind}
tags: [draw, arxiv:1502.04623]
---
# {name}

[DRAW: A Recurrent Neural Network For Image Generation](https://arxiv.org/abs/1502.04623), saved by fastdraw {__version__}.

{lines}

```python
import fastdraw
model = fastdraw.{name}.from_pretrained("this folder, or user/model")
```
"""
