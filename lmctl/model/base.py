"""The contract of the group `model`: an architecture and its size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmctl.core.component import Component

if TYPE_CHECKING:
    from lmctl.core.batch import Family
    from lmctl.core.vocabulary import Vocabulary


class ModelSpec(Component):
    """Group `model`: an architecture and its size. It is light; the network behind it imports torch."""

    @property
    @abstractmethod
    def family(self) -> Family:
        """Which positions its network lets look at which."""

    @property
    @abstractmethod
    def max_positions(self) -> int | None:
        """Longest row it takes; None: any."""

    @abstractmethod
    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Any:
        """An `nn.Module` that is a `Network` as well; Python types have no word for both. `heads` maps the name of
        each head it must have to its number of outputs."""

    def outline(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Any:
        """Like `load`, but weights that were trained before are not read, so that it may be called where tensors hold
        nothing (torch's meta device)."""
        return self.load(vocabulary, heads)

    @property
    def starts_from(self) -> str | None:
        """The run, model directory or hub id that its weights come from; None: it starts from scratch."""
        return None

    @property
    def tokenizer_path(self) -> str | None:
        """Where the tokenizer lies that goes with it; None: any will do."""
        return None

    @property
    def lora_rank(self) -> int:
        """Rank of the adapters that learn while everything else but heads is frozen; 0: there are none."""
        return 0

    @property
    def linear_layers(self) -> bool:
        """Whether there are any linear layers besides heads."""
        return True

    @property
    def carries_state(self) -> bool:
        """Whether its network carries a state from row to row, for objectives that ask for it."""
        return False

    @property
    def dropouts(self) -> Mapping[str, float | None]:
        """The rates of dropout by the key that sets each; None: as in the weights' own config, which is not known
        here."""
        return {}

    @property
    def nearest_mix(self) -> str:
        """What to type so that such a model is trained on something that it can learn."""
        return NEAREST_MIX[self.family]


NEAREST_MODEL: Mapping[Family, str] = {"encoder": "bert_tiny", "decoder": "gpt2_tiny", "seq2seq": "t5_tiny"}
NEAREST_MIX: Mapping[Family, str] = {"encoder": "mix=mlm", "decoder": "mix=clm", "seq2seq": "mix=denoise"}
