"""Tokenisation of a stream's blocks to examples in memory, as `prepare` does for whole corpora."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import DataError
from lmctl.core.token_store import TokenStore, store_in_memory
from lmctl.data.base import Block, Source, StreamPlace
from lmctl.mix.block_stream import BlockOfExamples
from lmctl.objective.base import Examples, Material, Objective
from lmctl.train.class_labels import Labels, labelled

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class BlockMaker:
    """Block reader of one task: a `ReadBlock` of lmctl/mix/block_stream.py."""

    source: Source
    objective: Objective
    material: Material
    """Material of the first block, with the label names of the task."""
    tokenizer: Tokenizer
    order: CounterRng
    """Random numbers for the order of the stream's shards."""

    def __call__(self, epoch: int, at: StreamPlace | None) -> BlockOfExamples:
        """DataError if the stream cannot be read, or if a row is bad or has an unknown label."""
        block = self.source.block(epoch, at, self.order)
        store = self._store(block)
        return BlockOfExamples(self._examples(store) if len(store) else None, block.after)

    def _store(self, block: Block) -> TokenStore:
        kind, names = self.objective.label_kind, self.material.store.label_names
        if kind is None:
            return store_in_memory((row.texts for row in block.rows), self.tokenizer)
        labels = Labels(kind, names, "the first block of the stream, from which the classes were taken")
        skip = self.source.on_bad_row == "skip"
        store = store_in_memory(labelled(block.rows, labels, skip, []), self.tokenizer)
        return replace(store, labels=labels.arrays()[0], label_names=names)

    def _examples(self, store: TokenStore) -> Examples | None:
        try:
            examples = self.objective.examples(replace(self.material, store=store))
        except DataError:  # the last block of a pass may be too short for a row
            return None
        return examples if len(examples) else None
