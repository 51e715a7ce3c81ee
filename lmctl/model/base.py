"""Base classes of the group `model`: specs of architectures, and the interface of their networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from lmctl.core.component import Component
from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lmctl.core.batch import Family
    from lmctl.core.vocabulary import Vocabulary
    from lmctl.plan import Plan


class Network(Protocol):
    """Interface of a loaded model; an `nn.Module`."""

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        """Last hidden states [N, H] (of an encoder-decoder the decoder's) at the flattened positions `read` int64 [N]
        only. None: one pooled state [R, H] per row: the first position of an encoder, the last position before padding
        of a decoder, ..."""
        ...

    def head(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V or classes] of the named head for hidden states [N, H]."""
        ...

    def head_parameters(self, name: str) -> list[nn.Parameter]:
        """Parameters of the named head."""
        ...

    def head_width(self, name: str) -> int:
        """Number of outputs of the named head."""
        ...

    def word_embeddings(self) -> Any:
        """The `nn.Embedding` that maps `input_ids` to [R, L, H] (the encoder's, in an encoder-decoder)."""
        ...

    def memory(self) -> Any:
        """Snapshot of the recurrent state carried between batches; None for networks without."""
        ...

    def recall(self, memory: Any) -> None:
        """Restore a snapshot from `memory`."""
        ...

    def carried(self) -> dict[str, Tensor]:
        """The carried state as named tensors, for a checkpoint; empty if none."""
        ...

    def checkpoint_activations(self) -> None:
        """Switch on gradient checkpointing: recompute activations in the backward pass."""
        ...

    def compile_body(self) -> None:
        """Compile the layers with torch.compile."""
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
    """Group `model`: an architecture and its size. It imports no torch; the network behind it does."""

    @property
    @abstractmethod
    def family(self) -> Family:
        """The family of its network (attention pattern)."""

    @property
    @abstractmethod
    def max_positions(self) -> int | None:
        """Longest row that it accepts; None: any length."""

    @abstractmethod
    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Any:
        """Build the network: an `nn.Module` that also implements `Network` (Python types cannot express both). `heads`
        maps the name of each required head to its number of outputs."""

    def outline(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Any:
        """Like `load`, but without reading pre-trained weights, so that it works on torch's meta device."""
        return self.load(vocabulary, heads)

    def settled(self, kernels: bool) -> ModelSpec:
        """Itself with a choice in the place of each `auto`. `kernels`: whether compiled CPU kernels are used."""
        return self

    @property
    def starts_from(self) -> str | None:
        """The run, model directory or hub id of its initial weights; None: random initialisation."""
        return None

    @property
    def tokenizer_path(self) -> str | None:
        """The path of its own tokenizer; None: it works with any."""
        return None

    @property
    def lora_rank(self) -> int:
        """Rank of LoRA adapters, which train while everything else but heads is frozen; 0: none."""
        return 0

    @property
    def linear_layers(self) -> bool:
        """Whether it has linear layers besides heads."""
        return True

    @property
    def carries_state(self) -> bool:
        """Whether its network carries a recurrent state from row to row, for objectives that need it."""
        return False

    @property
    def has_generator(self) -> bool:
        """Whether its network is `WithGenerator`, for objectives that ask for it."""
        return False

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        """Its configured dropout rates; None for one that only the config of its weights defines."""
        return ()

    @property
    def drops_nothing(self) -> bool:
        """Whether it is known to have no dropout."""
        return bool(self.dropouts) and all(rate == 0 for rate in self.dropouts)

    def refuse(self, device: torch.device) -> str | None:
        """Why it cannot be trained on this device as configured, with the nearest alternative, or None."""
        return None

    @property
    def nearest_mix(self) -> str:
        """The setting of a mix that this model can be trained with."""
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
        """Errors if it does not accept rows of `seq_len` positions."""
        longest = self.max_positions
        if longest is not None and seq_len > longest:
            yield ConfigError(
                f"batch.seq_len={seq_len} is longer than the model's {longest} positions",
                f"set batch.seq_len={longest} or model.max_positions={seq_len}",
            )


def no_dropout(plan: Plan) -> ConfigError:
    """The error for an adversary that needs dropout, with a model without dropout."""
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
"""Description of each family."""
NEAREST_MODEL: Mapping[Family, str] = {"encoder": "bert_tiny", "decoder": "gpt2_tiny", "seq2seq": "t5_tiny"}
"""An option of `model` of each family."""
NEAREST_MIX: Mapping[Family, str] = {"encoder": "mix=mlm", "decoder": "mix=clm", "seq2seq": "mix=denoise"}
"""The setting of a mix that a model of each family can be trained with."""
