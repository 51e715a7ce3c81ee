"""What is learnt, and by what: the groups `objective` and `model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lmctl.core.batch import Batch, Family, Kind, LabelKind, Terms
    from lmctl.core.draws import Draws
    from lmctl.core.store import TokenStore
    from lmctl.core.vocabulary import Rewrite, Vocabulary


@dataclass(frozen=True)
class Material:
    """All that the examples of a task are made of."""

    task: str
    store: TokenStore
    vocabulary: Vocabulary
    family: Family
    seq_len: int
    """Positions per row, special pieces included; on either side, where there are two."""
    batch_rows: int = 1
    """Rows of the task in one optimiser step: as many tracks where state is carried from row to row."""
    rewrite: Rewrite | None = None


class Examples(Protocol):
    """The rows that an objective makes of its material.

    Two attributes are optional. `lengths` int64 [len]: positions of each row; rows of similar length are then put
    side by side. `ordered` True: rows must come in the order of their numbers, in every epoch, because each goes on
    where the one before it in its track ended: row r is of track r % `tracks`, which is another attribute then.
    """

    def __len__(self) -> int: ...

    @property
    def tokens_per_row(self) -> float:
        """Mean number of real tokens of a row as `collate` makes it, for mixing tasks by tokens; augmentation need not
        be counted."""
        ...

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: Draws) -> Batch:
        """Rows int64 [R], each as it is in its own epoch (int64 [R]); all randomness comes from `draws`."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Group `objective`: what is predicted from what.

    Two attributes are optional. `carries_state` True: its network carries a state from row to row. `pairs_sentences`
    True: nothing can be made of documents of one sentence.
    """

    @property
    def reads(self) -> Kind:
        """The kind of rows it is made of."""
        ...

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of networks that can learn it."""
        ...

    @property
    def pieces(self) -> tuple[str, ...]:
        """Special pieces that the tokenizer must have for it, besides the usual five."""
        ...

    @property
    def label_kind(self) -> LabelKind | None:
        """What the labels of its rows are; None where it reads none."""
        ...

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        """The heads the network needs and how many outputs each has: "mlm" and "lm" [V], "pair" [2], a head named
        after the task [number of classes]. `store` is the training split."""
        ...

    def examples(self, material: Material) -> Examples: ...

    def terms(self, network: Network, batch: Batch) -> Terms:
        """The losses of one batch, in nats (squared error for numbers); named like `batch.targets`."""
        ...

    def scores(self, network: Network, batch: Batch) -> Terms:
        """For validation: the losses, and under `<term>_accuracy` and the like whatever else can be summed over
        the targets of `<term>`; tensors of any shape, if `figures` knows what to make of their sum."""
        ...

    def figures(self, means: dict[str, Any]) -> dict[str, float]:
        """What is reported of the `scores` of a whole split, each summed and divided by its number of targets."""
        ...

    def baseline(self, batch: Batch, train: TokenStore) -> dict[str, Any]:
        """The same sums as `scores` for the best guess that never looks at the text. `train` is the training split, but
        its labels are those of the rows that are validated on: no one answer for all of them is better than theirs."""
        ...


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

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass from now on instead of keeping them."""
        ...

    def compile_body(self) -> None:
        """Run the layers through torch.compile from now on."""
        ...

    def pretrained(self) -> Any:
        """The transformers `PreTrainedModel` that holds the weights, for export."""
        ...
