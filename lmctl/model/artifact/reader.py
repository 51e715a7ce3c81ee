"""Reading a model directory, or a model on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.batch import Family, LabelKind
from lmctl.core.errors import ConfigError
from lmctl.core.files import digest
from lmctl.core.model_files import CONFIG, TaskNote, check_files, check_outline, json_object, tasks
from lmctl.core.pretrained_files import check_fit, config_of, find, refuse_random, tokenizer_of, weights_of
from lmctl.core.safetensors_header import AGAIN, header
from lmctl.model import rnn
from lmctl.model.artifact import EXTRA_HEADS, GENERATOR, HEADS, PROBLEMS
from lmctl.model.artifact.auto import DISCRIMINATOR, AutoClass, auto_class, register

if TYPE_CHECKING:
    from torch import Tensor


_MOST_OUTPUTS = 1 << 24
"""Outputs of one head."""


@dataclass(frozen=True)
class Artifact:
    """A model directory, or a model on a hub; what is damaged or missing ends in a ConfigError."""

    asked: str
    """How the user called it, with which messages begin: `init_from=runs/x`."""
    place: str
    """The directory that transformers loads, or the id on the hub."""
    complete: bool = True
    """Whether it must have weights: the directory that a run writes when it begins has none yet."""

    @classmethod
    def at(cls, key: str, place: str) -> Artifact:
        """What the setting `key=place` names: a run, a model directory, a hub id."""
        return cls(f"{key}={place}", find(key, place))

    @property
    def folder(self) -> Path:
        return Path(self.place)

    @cached_property
    def config(self) -> Any:
        """Its transformers config; shared, so not to be changed."""
        register()
        return config_of(self.asked, self.place, check_files if self.complete else check_outline)

    @property
    def generator(self) -> Artifact | None:
        """What fills in the pieces that it judges; None if there is no such model beside it."""
        place = self.folder / GENERATOR
        return Artifact(self.asked, str(place), self.complete) if (place / CONFIG).is_file() else None

    @property
    def model_type(self) -> str:
        """What transformers calls the architecture."""
        return str(self.config.model_type)

    @cached_property
    def family(self) -> Family:
        """What the architecture can be trained as."""
        return family_of(self.config)

    @cached_property
    def max_positions(self) -> int | None:
        """The longest row that the network takes; None: any."""
        return max_positions_of(self.config)

    @cached_property
    def tasks(self) -> dict[str, TaskNote] | None:
        """By name, what lmctl trained the model for; None if lmctl did not."""
        return tasks(self.asked, self.folder)

    def labels(self, task: str) -> list[str] | None:
        """The names of the classes of `task`, in order; None if nothing says them."""
        if self.tasks is not None:
            if task in self.tasks and self.tasks[task]["labels"]:
                return self.tasks[task]["labels"]
            labelled = [note["labels"] for note in self.tasks.values() if note["labels"]]
            return labelled[0] if len(labelled) == 1 else None
        names = self.config.id2label or {}
        found = [str(names[place]) for place in sorted(names)]
        return None if all(name.startswith("LABEL_") for name in found) else found

    def heads(self) -> dict[str, int]:
        """The heads that the network had in training, with their numbers of outputs, of a directory without weights."""
        found = json_object(self.asked, self.folder / HEADS)
        if not all(type(outputs) is int and 0 < outputs <= _MOST_OUTPUTS for outputs in found.values()):
            raise ConfigError(f"{self.asked}: {HEADS} is damaged: heads have numbers of outputs", AGAIN)
        return found

    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return tokenizer_of(self.asked, self.place)

    def weights(self, kind: Any, config: Any = None, **how: Any) -> tuple[Any, list[str], list[str]]:
        """The model of transformers' class `kind`, with `config` or its own one; the names of the tensors that are new
        because the checkpoint lacks them, and of those that it has besides."""
        return weights_of(self.asked, kind, self.place, self.config if config is None else config, **how)

    def extra_heads(self) -> dict[str, Tensor]:
        """The tensors in `EXTRA_HEADS`; none if there is no such file."""
        from safetensors.torch import load_file

        file = self.folder / EXTRA_HEADS
        if not file.is_file():
            return {}
        header(self.asked, file)
        return load_file(file)

    def answering(self) -> Artifact:
        """The model that predicts words or labels texts: of a discriminator its generator, if that lies beside it."""
        discriminates = (self.config.architectures or [""])[0] == DISCRIMINATOR
        return self.generator or self if discriminates else self

    def auto_class(self) -> AutoClass:
        """What it is as it stands; ConfigError if there is no use for it."""
        return auto_class(self.asked, self.config, self.family)

    def finished(self, kind: Any) -> tuple[Any, Any]:
        """Model and tokenizer, for use: all of its weights are trained ones, and the two belong together."""
        tokenizer = self.tokenizer()
        model, new, _ = self.weights(kind)
        refuse_random(self.asked, new)
        check_fit(self.asked, tokenizer, model)
        return model, tokenizer

    def fingerprint(self) -> str:
        """64 hex digits of each of the weights' files; of a model on a hub the commit."""
        if self.folder.is_dir():
            return "".join(digest(path) for path in sorted(self.folder.glob("*.safetensors")))
        return f"{self.place}@{getattr(self.config, '_commit_hash', None)}"


def family_of(config: Any) -> Family:
    """What the architecture of a transformers config can be trained as."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder:
        return "seq2seq"
    if config.model_type == rnn.LANGUAGE_MODEL:
        return "decoder"
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "decoder" if causal and not masked else "encoder"


def max_positions_of(config: Any) -> int | None:
    """The longest row that a network with this transformers config takes; None: any."""
    from lmctl.model.positions import outlined_positions

    return None if config.model_type in rnn.TYPES else outlined_positions(config)


def label_kind(config: Any) -> LabelKind:
    """What the labels of a classifier of transformers are."""
    if config.problem_type == PROBLEMS["number"] or config.num_labels == 1:
        return "number"
    return "classes" if config.problem_type == PROBLEMS["classes"] else "class"
