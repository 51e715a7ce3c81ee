"""`model=pretrained init_from=...`: go on from a run, a Hugging Face model directory or a hub id.

The trunk is loaded, heads that the new tasks need and the checkpoint lacks are new, heads that nobody needs stay
behind; what happened to what is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from lmctl.core.batch import Family
from lmctl.core.component import MAY_CHANGE
from lmctl.core.paths import Place
from lmctl.core.vocabulary import Vocabulary
from lmctl.model import rnn
from lmctl.model.artifact.reader import Artifact
from lmctl.model.attention import Attending

if TYPE_CHECKING:
    from lmctl.model.network import TransformerNetwork


@dataclass(frozen=True)
class Pretrained(Attending):
    """A model that was trained before."""

    key: ClassVar[str] = "init_from"
    """What the user calls it by."""

    init_from: Place = field(metadata=MAY_CHANGE)
    dropout: Optional[float] = None
    freeze: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: Optional[list[str]] = None

    def __post_init__(self) -> None:
        super().__post_init__()
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
    def starts_from(self) -> str:
        return self.init_from

    @property
    def tokenizer_path(self) -> str:
        return self.init_from

    @cached_property
    def artifact(self) -> Artifact:
        """Where it lies, and what is in it."""
        return Artifact.at(self.key, self.init_from)

    @property
    def place(self) -> str:
        """The directory that transformers loads, or the hub id."""
        return self.artifact.place

    @property
    def config(self) -> Any:
        """Its transformers config."""
        return self.artifact.config

    @property
    def family(self) -> Family:
        """What its config says it is."""
        return self.artifact.family

    @property
    def carries_state(self) -> bool:
        return self.artifact.model_type == rnn.LANGUAGE_MODEL

    @property
    def has_generator(self) -> bool:
        return self.artifact.generator is not None

    @property
    def linear_layers(self) -> bool:
        return self.artifact.model_type not in (rnn.LANGUAGE_MODEL, rnn.CLASSIFIER)

    @property
    def max_positions(self) -> int | None:
        return self.artifact.max_positions

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout, self.lora_dropout)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> TransformerNetwork:
        """The network with its weights where there are any for `heads`."""
        from lmctl.model.loading import load

        return self._restricted(load(self.artifact, vocabulary, heads, self.dropout))

    def outline(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> TransformerNetwork:
        """The same network from its config alone."""
        from lmctl.model.loading import outline

        beside = None if self.artifact.generator is None else self.artifact.generator.config
        return self._restricted(outline(self.artifact.asked, self.config, vocabulary, heads, self.dropout, beside))

    def _restricted(self, network: TransformerNetwork) -> TransformerNetwork:
        """Choose the attention function, freeze what shall not learn, and add adapters."""
        network.attending(self.attention)
        if self.freeze:
            network.freeze(self.freeze)
        if self.lora_rank:
            from lmctl.model.lora import add_lora

            add_lora(network, self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets)
        return network


@dataclass(frozen=True)
class TeacherModel(Pretrained):
    """A teacher: a model that was trained before, as it is; in messages called by the key that names it."""

    key: ClassVar[str] = "teacher"


class Template(Pretrained):
    """All of a model directory but the weights, as a run writes it when it begins."""

    @cached_property
    def artifact(self) -> Artifact:
        return Artifact(f"{self.key}={self.init_from}", self.init_from, complete=False)
