"""The model that is exported, and the number format in which it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths
from lmctl.core.pretrained_files import hub_is_reachable
from lmctl.export.base import ExportFormat
from lmctl.inference.load import Loaded, load
from lmctl.model import rnn
from lmctl.model.artifact import GENERATOR
from lmctl.precision.base import Quantization
from lmctl.runner.places import Cpu

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Subject:
    """A finished model, loaded, and how its weights are to be written."""

    loaded: Loaded
    run: Paths | None
    """The run that trained it; None for a model from elsewhere."""
    dtype: str
    """One of the format's."""
    quantize: Quantization | None

    @property
    def model(self) -> Any:
        """The transformers model in float32 on the CPU, in evaluation mode."""
        return self.loaded.model

    @property
    def name(self) -> str:
        """The run's name, or the last part of the model's directory or id."""
        return self.run.root.name if self.run is not None else Path(self.loaded.path).name

    @property
    def quantize_name(self) -> str:
        """The option of `quantize`; empty if weights are float."""
        return "" if self.quantize is None else option_name(self.quantize)

    @property
    def decoder_start(self) -> int:
        """Of an encoder-decoder: the piece that the decoder begins with."""
        start = self.model.config.decoder_start_token_id
        return self.loaded.begin if start is None else int(start)

    @property
    def own_architecture(self) -> bool:
        """Whether transformers has no such architecture, and lmctl has."""
        return self.loaded.artifact.model_type in rnn.TYPES

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads it."""
        return str(self.loaded.artifact.answering().auto_class().kind.__name__)

    @property
    def below(self) -> str:
        """Where in the model's directory the network lies: of a discriminator the generator's directory."""
        artifact = self.loaded.artifact
        return "" if artifact.answering() is artifact else GENERATOR

    def folder(self, files: Sequence[str]) -> Path:
        """The model's directory; of a model on a hub, `files` (patterns) of it in the hub's cache."""
        if self.loaded.artifact.folder.is_dir():
            return self.loaded.artifact.folder
        from huggingface_hub import snapshot_download

        offline = not hub_is_reachable()
        return Path(snapshot_download(self.loaded.path, allow_patterns=list(files), local_files_only=offline))

    @property
    def megabytes(self) -> float:
        """Size of its weights in float32, each once."""
        return sum(parameter.nbytes for parameter in self.model.parameters()) / 1e6

    @cached_property
    def torch_dtype(self) -> torch.dtype:
        """torch's dtype of the same name; ValueError for q8_0, which torch has not."""
        import torch

        known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if self.dtype not in known:
            raise ValueError(self.dtype)
        return known[self.dtype]


def subject_of(model_path: str, format: ExportFormat, dtype: str | None, quantize: Quantization | None) -> Subject:
    """Load the model that `model_path` names, for `format`. Without a `dtype` weights stay as they are saved, or become
    float32 where the format has not that one. ConfigError if the format has no place for the model."""
    import torch

    loaded = load(model_path, Cpu())
    saved = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(loaded.model.dtype, "fp32")
    chosen = dtype or (saved if saved in format.dtypes else "fp32")
    loaded.model.float()
    subject = Subject(loaded, run_of_model(loaded), chosen, quantize)
    if (reason := format.refuse(subject)) is not None:
        raise ConfigError(f"format={format.name}: {reason}")
    return subject


def run_of_model(loaded: Loaded) -> Paths | None:
    """The run directory that a model directory lies in, as its model/, in a checkpoint, or as an export of it."""
    folder = Path(loaded.path)
    found = map(Paths, folder.resolve().parents[:4] if folder.is_dir() else ())
    return next((run for run in found if run.config.is_file() and run.environment.is_file()), None)


def check_dtype(format: ExportFormat, dtype: str | None, quantize: Quantization | None) -> None:
    """ConfigError if `format` has not this number format; called before any work."""
    if dtype is not None and dtype not in format.dtypes:
        nearest = {"q8_0": "quantize=int8_weight_only" if format.quantizes else "format=gguf"}.get(dtype, "dtype=fp16")
        raise ConfigError(
            f"dtype={dtype} is not for format={format.name}, which has {', '.join(format.dtypes)}",
            f"nearest: {nearest}",
        )
    if quantize is None:
        return
    name = option_name(quantize)
    if name not in format.quantizes:
        remedy = "nearest: dtype=q8_0" if "q8_0" in format.dtypes else "nearest: format=onnx"
        raise ConfigError(f"quantize={name} is not for format={format.name}", remedy)
    if dtype not in (None, "fp32"):
        raise ConfigError(f"quantize={name} starts from float32, and dtype={dtype} is asked for", "leave dtype out")


def option_name(quantize: Quantization) -> str:
    """Name of an option of `quantize` in the config."""
    return type(quantize).__module__.rpartition(".")[2]
