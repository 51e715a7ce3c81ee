"""Replaced-token detection (Clark et al. 2020, "ELECTRA: Pre-training text encoders as discriminators rather than
generators"): a small generator fills masks, a discriminator says of every piece whether it is the original one.

The generator learns as a masked language model; no gradient goes through what it draws. All chosen pieces are masked
(section 2), where BERT leaves or exchanges some. Every position that is not padding is asked about, special pieces
included, and a piece that was drawn as it had been is original, both as in the paper's code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from lmctl.core.batch import Batch, Targets
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import LOSS, Material, Metric, Prediction
from lmctl.objective.mlm import MaskedLM, MaskedRows
from lmctl.objective.packed_rows import FullRows

if TYPE_CHECKING:
    from torch import Tensor

    from lmctl.model.base import Network, WithGenerator
    from lmctl.plan import Plan

DRAWN_BYTES = 1 << 26
"""Float32 logits that are in memory at a time while pieces are drawn."""


@dataclass(frozen=True)
class ReplacedTokens(MaskedLM):
    """Tell pieces that a generator wrote from the original ones."""

    rtd_weight: float = 50.0

    needs_generator: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rtd_weight <= 0:
            raise ValueError(f"rtd_weight must be above 0, got {self.rtd_weight}")

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from super().check(plan)
        if plan.distill.terms:
            yield ConfigError(
                "distill: ReplacedTokens asks about pieces that the student's own generator wrote, which no teacher "
                "has seen",
                "nearest: mix=mlm, or distil a classifier that was fine-tuned from this model",
            )
        if plan.adversary.augments:
            yield ConfigError(
                f"adversary: {type(plan.adversary).__name__} rewrites what is not asked about, and ReplacedTokens asks "
                "about every piece",
                "nearest: adversary=freelb, or augment=char_noise",
            )
        if plan.model.lora_rank:
            yield ConfigError(
                f"model.lora_rank={plan.model.lora_rank}: adapters would leave out the generator, which "
                "ReplacedTokens trains, too",
                "model.lora_rank=0",
            )

    def weight(self, term: str) -> float:
        return self.rtd_weight if term == "rtd" else 1.0

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"generator": vocabulary.size, "rtd": 1}

    def head(self, task: str, term: str) -> str:
        return "generator" if term == "mlm" else term

    def examples(self, material: Material) -> MaskedRows:
        return FilledRows(self, material, FullRows(material.store, material.vocabulary, material.seq_len))

    def predict(self, network: Network, batch: Batch) -> dict[str, Prediction]:
        """The generator's states at the masks, then the discriminator's at all pieces of the rows that it filled."""
        generator = cast("WithGenerator", network).generator
        masked, asked, ids = batch.targets["mlm"], batch.targets["rtd"], batch.inputs["input_ids"]
        states = generator.encode(batch.inputs, masked.positions)
        written = drawn(network, "generator", states, batch.inputs["draws"])
        filled = ids.reshape(-1).index_copy(0, masked.positions, written)
        replaced = filled.index_select(0, asked.positions) != asked.labels
        inputs = {**batch.inputs, "input_ids": filled.view_as(ids)}
        hidden = network.encode(inputs, asked.positions)
        return {
            "mlm": Prediction("generator", states, masked.labels, batch.inputs, masked.positions),
            "rtd": Prediction("rtd", hidden, replaced.float()[:, None], inputs, asked.positions),
        }

    def loss(self, term: str, logits: Tensor, labels: Tensor) -> Tensor:
        """For "rtd" the binary cross-entropy of logits [N, 1], in float32, against labels float32 [N, 1]: 1 where a
        piece was replaced."""
        import torch.nn.functional as F

        if term == "mlm":
            return super().loss(term, logits, labels)
        return F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")

    def metrics(self, term: str, logits: Tensor, labels: Tensor) -> dict[str, Metric]:
        """For "rtd" besides the loss, since most pieces are original: `gain`, nats per piece over somebody who knows
        how many are replaced and nothing else; `recall` of the replaced ones; and the mean of this and the same share
        of the original ones."""
        import torch

        if term == "mlm":
            return super().metrics(term, logits, labels)
        loss, right = self.loss(term, logits, labels), ((logits > 0) == (labels > 0)).float()
        found, replaced = (right * labels).sum(), labels.sum()
        kinds = torch.stack([found, replaced, right.sum() - found, len(labels) - replaced])
        count = len(labels)
        return {
            LOSS: Metric(loss, count, higher_is_better=False),
            "gain": Metric(torch.stack([loss, replaced]), count, higher_is_better=True, finish=gain),
            "recall": Metric(kinds[:2], count, higher_is_better=True, finish=recall),
            "balanced_accuracy": Metric(kinds, count, higher_is_better=True, finish=balanced_accuracy),
        }

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        """How many pieces will be replaced depends on the generator, so a guess has a figure only where this makes no
        difference."""
        if term == "mlm":
            return super().baseline(term, labels, train)
        count = len(labels)
        return {
            "gain": Metric(0.0, count, higher_is_better=True),
            "balanced_accuracy": Metric(0.5 * count, count, higher_is_better=True),
        }


@dataclass(frozen=True)
class FilledRows(MaskedRows):
    """The rows of `ReplacedTokens`: masked ones, with what is needed to fill them in."""

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        """`rtd` targets have the original pieces for labels: which ones were replaced is known when the generator has
        answered."""
        import torch

        batch = super().collate(rows, epochs, draws)
        masked, ids = batch.targets["mlm"], batch.inputs["input_ids"]
        original = ids.reshape(-1).index_copy(0, masked.positions, masked.labels)
        mask = torch.full_like(masked.labels, self.material.vocabulary.mask)
        inputs = {**batch.inputs, "input_ids": ids.reshape(-1).index_copy(0, masked.positions, mask).view_as(ids)}
        uniforms = torch.from_numpy(draws.named("generator").uniforms(epochs, rows, ids.shape[1])).float()
        inputs["draws"] = uniforms.reshape(-1)[masked.positions]
        real = inputs.get("attention_mask", torch.ones_like(ids, dtype=torch.bool))
        places = real.reshape(-1).nonzero().squeeze(-1)
        return replace(batch, inputs=inputs, targets={"mlm": masked, "rtd": Targets(places, original[places])})


def drawn(network: Network, head: str, states: Tensor, uniforms: Tensor) -> Tensor:
    """int64 [N]: a piece for each of the states [N, H], from the softmax of what `head` says there: the first one at
    which the distribution function goes beyond its number in `uniforms` float32 [N]. Logits are made chunk by chunk."""
    import torch

    width, pieces = network.head_width(head), []
    rows = max(1, DRAWN_BYTES // (4 * width))
    with torch.no_grad():
        for hidden, uniform in zip(states.split(rows), uniforms.split(rows), strict=True):
            # Rows that only round the vocabulary up to a multiple are no pieces.
            share = network.head(head, hidden)[:, :width].float().softmax(dim=-1).cumsum(dim=-1)
            place = torch.searchsorted(share, uniform[:, None] * share[:, -1:], right=True)
            pieces.append(place.squeeze(-1).clamp(max=width - 1))
    return torch.cat(pieces)


def gain(means: np.ndarray) -> float:
    """Of (loss, replaced): what the entropy of how many are replaced is above the loss, in nats."""
    loss, share = means.tolist()
    entropy = -sum(part * math.log(part) for part in (share, 1 - share) if part > 0)
    return entropy - loss


def recall(means: np.ndarray) -> float:
    """Of (found, there): the share that was found; 1 where there was nothing to find."""
    found, there = means.tolist()
    return found / there if there else 1.0


def balanced_accuracy(means: np.ndarray) -> float:
    """Of (found, there) for replaced pieces, then for original ones: the mean of both shares."""
    return (recall(means[:2]) + recall(means[2:])) / 2
