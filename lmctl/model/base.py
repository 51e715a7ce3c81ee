"""The contract of the group `model`: an architecture and its size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from lmctl.core.component import Component
from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lmctl.core.batch import Family
    from lmctl.core.vocabulary import Vocabulary
    from lmctl.plan import Plan


class Network(Protocol):
    """What a model of the group `model` can do once loaded; an `nn.Module`."""

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        """Last hidden states [N, H] at the flattened positions `read` int64 [N], and nowhere else (of the decoder,
        where there is one besides the encoder). None: one summary [R, H] of each row, as this architecture
        makes it: the first position of an encoder, the last real one of a decoder, ..."""
        ...

    def head(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V or classes] of the named head for hidden states [N, H]."""
        ...

    def head_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters that `head` computes with."""
        ...

    def head_width(self, name: str) -> int:
        """Outputs of the named head."""
        ...

    def word_embeddings(self) -> Any:
        """The `nn.Embedding` that makes vectors [R, L, H] of `input_ids` (of the encoder's, where there is a decoder
        besides)."""
        ...

    def memory(self) -> Any:
        """What a network that carries a state from batch to batch has carried so far; None for others."""
        ...

    def recall(self, memory: Any) -> None:
        """Go on from what `memory` gave."""
        ...

    def carried(self) -> dict[str, Tensor]:
        """The same by names, for a checkpoint; empty where nothing is carried."""
        ...

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass from now on instead of keeping them."""
        ...

    def compile_body(self) -> None:
        """Run the layers through torch.compile from now on."""
        ...

    def pretrained(self) -> Any:
        """The transformers `PreTrainedModel` that holds the weights, for export."""
        ...


class WithGenerator(Network, Protocol):
    """A network with a smaller one beside it, which fills in what it is to judge."""

    @property
    def generator(self) -> Network:
        """The smaller one; the larger has a head "generator" for its states."""
        ...


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
    def has_generator(self) -> bool:
        """Whether its network is `WithGenerator`, for objectives that ask for it."""
        return False

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        """The rates of dropout that its settings give; None: one that only the config of its weights knows."""
        return ()

    @property
    def drops_nothing(self) -> bool:
        """Whether it is known that it drops nothing out."""
        return bool(self.dropouts) and all(rate == 0 for rate in self.dropouts)

    @property
    def nearest_mix(self) -> str:
        """What to type so that such a model is trained on something that it can learn."""
        return NEAREST_MIX[self.family]

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from self.check_length(plan.batch.seq_len)
        if plan.adversary.needs_dropout and self.drops_nothing:
            yield no_dropout(plan)
        if plan.init_from is not None and self.starts_from is None:
            yield ConfigError(
                f"init_from={plan.init_from} is of no use to {type(self).__name__}, which starts from scratch",
                "leave model= out, or give model=pretrained",
            )

    def check_length(self, seq_len: int) -> Iterator[ConfigError]:
        """Why it does not take rows of `seq_len` positions."""
        longest = self.max_positions
        if longest is not None and seq_len > longest:
            yield ConfigError(
                f"batch.seq_len={seq_len} is longer than the model's {longest} positions",
                f"set batch.seq_len={longest} or model.max_positions={seq_len}",
            )


def no_dropout(plan: Plan) -> ConfigError:
    """The error for an adversary that lives on dropout, and a model without."""
    return ConfigError(
        f"adversary: {type(plan.adversary).__name__} needs dropout, and {type(plan.model).__name__} as configured "
        "drops nothing out",
        "a dropout of the model above 0 (model.dropout=0.1, model.attention_dropout=0.1), or adversary=smart",
    )


A_FAMILY: Mapping[Family, str] = {
    "encoder": "an encoder",
    "decoder": "a decoder",
    "seq2seq": "an encoder with a decoder (seq2seq)",
}
"""What a model of that family is."""
NEAREST_MODEL: Mapping[Family, str] = {"encoder": "bert_tiny", "decoder": "gpt2_tiny", "seq2seq": "t5_tiny"}
"""An option of `model` that is of that family."""
NEAREST_MIX: Mapping[Family, str] = {"encoder": "mix=mlm", "decoder": "mix=clm", "seq2seq": "mix=denoise"}
"""What to type so that a model of that family is trained on something that it can learn."""
