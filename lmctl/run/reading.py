"""Networks as an objective sees them, with something done on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lmctl.core.batch import Batch, Targets
from lmctl.core.tasks import Network
from lmctl.run.embeddings import real_positions


class Watched:
    """A network that keeps the logits it gives."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.logits: list[Tensor] = []

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        return self.network.encode(inputs, read)

    def head(self, name: str, hidden: Tensor) -> Tensor:
        self.logits.append(self.network.head(name, hidden))
        return self.logits[-1]


class Known:
    """A network whose hidden states [n, H] at the targets are known: only its heads are called. It goes with a batch
    that `numbered` made, and keeps what the heads gave, by their names."""

    def __init__(self, network: Network, hidden: Tensor) -> None:
        self.network, self.hidden = network, hidden
        self.heads: list[tuple[str, Tensor]] = []

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        return self.hidden if read is None else self.hidden.index_select(0, read)

    def head(self, name: str, hidden: Tensor) -> Tensor:
        logits = self.network.head(name, hidden)
        self.heads.append((name, logits))
        return logits


def numbered(batch: Batch, rows: Mapping[str, slice]) -> Batch:
    """The targets `rows` of each term, numbered one term after the other, without the text."""
    targets, start = {}, 0
    for term, some in rows.items():
        labels = batch.targets[term].labels[some]
        places = torch.arange(start, start + len(labels), device=labels.device)
        targets[term], start = Targets(places, labels), start + len(labels)
    return replace(batch, inputs={}, targets=targets)


def real_by_stack(batch: Batch, whole_rows: bool) -> dict[str, Tensor]:
    """bool [R, L] by stack of layers: what is not padding. `whole_rows`: the batch asks about these."""
    if "decoder_input_ids" not in batch.inputs:
        return {"layers": real_positions(batch, whole_rows)}
    ids, mask = batch.inputs["decoder_input_ids"], batch.inputs.get("decoder_attention_mask")
    target = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    return {"encoder": real_positions(batch, on_rows=True), "decoder": target}
