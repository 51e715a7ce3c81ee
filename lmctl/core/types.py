"""The nouns that the rooms share: batches, targets, terms, and one protocol per config group.

Each protocol has a verb of its own, because `isinstance` on a protocol sees only names. Nothing here imports
torch at run time: `lmctl --help` and most config errors must answer in about a second.

Shapes are written with R rows, L positions in a row, N targets, H hidden units, V pieces of vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

    from lmctl.core.draws import Draws
    from lmctl.core.store import TokenStore
    from lmctl.core.vocabulary import Vocabulary

Split: TypeAlias = Literal["train", "valid"]

Document: TypeAlias = "list[str]"
"""The sentences of one document, in order, each a non-empty string without line breaks."""

Terms: TypeAlias = "dict[str, Tensor]"
"""Named parts of a loss, each a scalar *summed* over its targets; the runner divides once, by the global count."""


@dataclass(frozen=True)
class Targets:
    """What one term of the loss is asked to predict."""

    positions: Tensor
    """int64 [N]: places in the flattened [R * L] batch."""
    labels: Tensor
    """int64 [N]: the right answer at each of them."""


@dataclass(frozen=True)
class Batch:
    """Rows of one task, ready for the model."""

    task: str
    inputs: dict[str, Tensor]
    """`input_ids` int64 [R, L]; where the task needs them `token_type_ids` int64 [R, L] and, only when there is
    padding, `attention_mask` bool [R, L]."""
    targets: dict[str, Targets]
    """Per term of the loss. Its name is the name of the term."""
    tokens: int
    """Real tokens in the batch, padding not counted."""

    def counts(self) -> dict[str, int]:
        """Number of targets per term."""
        return {name: len(target.labels) for name, target in self.targets.items()}

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; copies do not block the host where memory is pinned."""
        if device.type == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

        targets = {name: Targets(move(t.positions), move(t.labels)) for name, t in self.targets.items()}
        return Batch(self.task, {name: move(t) for name, t in self.inputs.items()}, targets, self.tokens)


@runtime_checkable
class Source(Protocol):
    """Group `data`: where documents come from."""

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that change whenever `documents` would yield something else: file contents, options."""
        ...

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of one split, always the same ones in the same order."""
        ...

    def describe(self) -> str:
        """The source in a few words: what was found, and how it was read."""
        ...


@runtime_checkable
class TokenizerSpec(Protocol):
    """Group `tokenizer`: how text becomes pieces."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that, with the training text, determine the tokenizer."""
        ...

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences` (or load, and leave them alone)."""
        ...


class Examples(Protocol):
    """The rows that an objective makes of a token store."""

    def __len__(self) -> int: ...

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: Draws) -> Batch:
        """Rows int64 [R], each as it is in its own epoch (int64 [R]); all randomness comes from `draws`."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Group `objective`: what is predicted from what."""

    @property
    def heads(self) -> frozenset[str]:
        """The heads the network needs: "mlm", "pair"."""
        ...

    def examples(self, task: str, store: TokenStore, vocabulary: Vocabulary, seq_len: int) -> Examples: ...

    def terms(self, network: Network, batch: Batch) -> Terms:
        """The losses of one batch, in nats."""
        ...

    def scores(self, network: Network, batch: Batch) -> Terms:
        """For validation: the losses, and under `<term>_accuracy` and the like whatever else can be summed over
        the targets of `<term>`."""
        ...

    def baseline(self, batch: Batch, histogram: Tensor) -> dict[str, float]:
        """The same sums for the best guess that never looks at the text; `histogram` int64 [V] counts the pieces
        of the training split."""
        ...


class Network(Protocol):
    """What a model of the group `model` can do once loaded; an `nn.Module`."""

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor) -> Tensor:
        """Last hidden states [N, H] at the flattened positions `read` int64 [N], and nowhere else."""
        ...

    def head(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V or classes] of the named head for hidden states [N, H]."""
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


@runtime_checkable
class ModelSpec(Protocol):
    """Group `model`: an architecture and its size."""

    @property
    def max_positions(self) -> int: ...

    def load(self, vocabulary: Vocabulary, heads: frozenset[str]) -> Any:
        """An `nn.Module` that is a `Network` as well; Python types have no word for both."""
        ...


class LossScaler(Protocol):
    """Guards one optimiser step against gradients that are not finite."""

    def scale(self, loss: Tensor) -> Tensor: ...

    def unscale(self, optimizer: torch.optim.Optimizer) -> None: ...

    def step(self, optimizer: torch.optim.Optimizer, grad_norm: Tensor) -> bool:
        """Take the step if the gradients are finite; says whether it was taken."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Precision(Protocol):
    """Group `precision`: number formats of parameters, products and updates."""

    def refuse(self, device: torch.device) -> str | None:
        """Why this device cannot do it and what is nearest, or None."""
        ...

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, matrix products run in this precision."""
        ...

    def scaler(self, device: torch.device) -> LossScaler: ...

    def table(self, device: torch.device) -> dict[str, str]:
        """dtypes by role: parameter, master, compute, accumulate, gradient, reduction, optimiser."""
        ...


@runtime_checkable
class OptimSpec(Protocol):
    """Group `optim`: the rule that turns gradients into updates."""

    lr: float

    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer: ...


@runtime_checkable
class Schedule(Protocol):
    """Group `schedule`: the learning rate over the budget."""

    def factor(self, progress: float) -> float:
        """What the peak learning rate is multiplied by when `progress` (above 0, up to 1) of the budget is spent."""
        ...


@runtime_checkable
class Where(Protocol):
    """Group `runner`: on which devices, in how many processes."""

    def world(self) -> int:
        """How many processes this run wants (1: the one that is already here)."""
        ...

    def on_cpu(self) -> bool:
        """Whether the run stays off the GPU."""
        ...


@dataclass(frozen=True)
class Paths:
    """Where the parts of a run directory lie."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def plot(self) -> Path:
        return self.root / "plots" / "loss.png"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"
