"""`model=teacher_layers`: the teacher's architecture with fewer layers (all else as in its config)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional

from lmctl.core.batch import Family
from lmctl.core.component import MAY_CHANGE
from lmctl.core.paths import Places
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.artifact.reader import family_of, max_positions_of
from lmctl.model.attention import Attending
from lmctl.model.layer_selection import check_keep
from lmctl.model.pretrained import TeacherModel

if TYPE_CHECKING:
    from lmctl.model.network import TransformerNetwork


@dataclass(frozen=True)
class TeacherLayers(Attending):
    """A student with the architecture of its teacher."""

    teacher: Places = field(metadata=MAY_CHANGE)
    """A run directory, a model directory or a hub id; of several the first."""
    layers: Optional[int] = None
    """Number of layers; None: as many as `keep` lists."""
    decoder_layers: Optional[int] = None
    """Number of decoder layers of a seq2seq model; None: as many as `layers`."""
    keep: Any = "uniform"
    """Which layers: uniform, first, last or a list. Layers of several kinds keep their kind."""
    dropout: Optional[float] = None
    """Dropout rate; None: the teacher's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teacher:
            raise ValueError("there is no teacher whose layers to take: teacher=RUN, a model directory or a hub id")
        for name in ("layers", "decoder_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.keep is not None:
            check_keep(self.keep)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability below 1, got {self.dropout}")

    @property
    def tokenizer_path(self) -> str:
        return self.teacher if isinstance(self.teacher, str) else self.teacher[0]

    @cached_property
    def whole(self) -> TeacherModel:
        """The teacher with all its layers."""
        return TeacherModel(self.tokenizer_path)

    @cached_property
    def config(self) -> Any:
        """Its transformers config with fewer layers."""
        from lmctl.model.copy_layers import cut

        config = deepcopy(self.whole.config)
        cut(config, "uniform" if self.keep is None else self.keep, self.layers, self.decoder_layers)
        return config

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @cached_property
    def max_positions(self) -> int | None:
        return max_positions_of(self.config)

    @property
    def linear_layers(self) -> bool:
        return self.whole.linear_layers

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout,)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> TransformerNetwork:
        """The network, randomly initialised."""
        from lmctl.model.loading import outline

        network = outline(self.whole.artifact.asked, self.config, vocabulary, heads, self.dropout)
        return network.attending(self.attention)
