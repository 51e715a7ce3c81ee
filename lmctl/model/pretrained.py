"""`model=pretrained init_from=...`: go on from a run, a Hugging Face model directory or a hub id.

The trunk is loaded, heads that the new tasks need and the checkpoint lacks are new, heads that nobody needs stay
behind; what happened to what is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from lmctl.core.batch import Family
from lmctl.core.errors import ConfigError
from lmctl.core.files import means_a_place, nearest_place, path_of
from lmctl.core.foreign import config_of
from lmctl.core.model_files import check_outline, near
from lmctl.core.places import Paths, Place
from lmctl.core.vocabulary import Vocabulary
from lmctl.core.words import command
from lmctl.model import rnn
from lmctl.model.rnn.auto import register

if TYPE_CHECKING:
    from lmctl.model.network import TransformerNetwork


@dataclass(frozen=True)
class Pretrained:
    """A model that was trained before."""

    key: ClassVar[str] = "init_from"
    """What the user calls it by."""

    init_from: Place
    dropout: Optional[float] = None
    freeze: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: Optional[list[str]] = None

    def __post_init__(self) -> None:
        if not self.init_from:
            raise ValueError(f"{self.key} must name a run directory, a model directory or a hub id")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability below 1, got {self.dropout}")
        if self.freeze < -1:
            raise ValueError(f"freeze is a number of layers, or -1 for the whole trunk, got {self.freeze}")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must not be negative (0: no adapters), got {self.lora_rank}")
        if self.lora_alpha <= 0:
            raise ValueError(f"lora_alpha must be above 0, got {self.lora_alpha}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is a probability below 1, got {self.lora_dropout}")

    @property
    def imports(self) -> tuple[str, ...]:
        return ("peft",) if self.lora_rank else ()

    @property
    def tokenizer_path(self) -> str:
        """Where the tokenizer lies that goes with it."""
        return self.init_from

    @cached_property
    def place(self) -> str:
        """The directory that transformers loads, or the hub id."""
        folder = path_of(self.init_from)
        paths = Paths(folder)
        if (paths.model / "config.json").is_file():
            return str(paths.model)
        if folder.is_dir() and not (folder / "config.json").is_file():
            unfinished = paths.config.is_file()
            raise ConfigError(
                f"{self.key}={self.init_from}: "
                + ("this run has no model/ yet" if unfinished else "neither a run nor a model directory"),
                f"finish it: {command('lmctl train resume=auto', run_dir=folder)}" if unfinished else near(folder),
            )
        if not folder.exists() and means_a_place(self.init_from):
            raise ConfigError(f"{self.key}={self.init_from}: no such directory", nearest_place(folder))
        return str(folder) if folder.exists() else self.init_from

    @cached_property
    def config(self) -> Any:
        """Its transformers config."""
        register()
        return config_of(f"{self.key}={self.init_from}", self.place)

    @cached_property
    def family(self) -> Family:
        """What the config says it is."""
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        )

        if self.config.is_encoder_decoder:
            return "seq2seq"
        kind = self.config.model_type
        if kind == rnn.LANGUAGE_MODEL:
            return "decoder"
        masked, causal = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES, kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        return "decoder" if causal and not masked else "encoder"

    @property
    def carries_state(self) -> bool:
        return bool(self.config.model_type == rnn.LANGUAGE_MODEL)

    @property
    def linear_layers(self) -> bool:
        """Whether there are any besides heads."""
        return self.config.model_type not in (rnn.LANGUAGE_MODEL, rnn.CLASSIFIER)

    @cached_property
    def max_positions(self) -> int | None:
        if self.config.model_type in rnn.TYPES:
            return None
        from lmctl.model.positions import outlined_positions

        return outlined_positions(self.config)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> TransformerNetwork:
        """The network with its weights where there are any for `heads`."""
        from lmctl.model.loading import load

        return load(self, vocabulary, heads)

    def outline(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> TransformerNetwork:
        """The same network from its config alone."""
        from lmctl.model.loading import outline

        return outline(self, vocabulary, heads)


class Template(Pretrained):
    """All of a model directory but the weights, as a run writes it when it begins."""

    @cached_property
    def config(self) -> Any:
        register()
        return config_of(f"{self.key}={self.init_from}", self.place, check_outline)
