"""A micro-batch with its texts rewritten and its targets the same, for an adversary that compares the two.

What is asked about keeps its answer and must be found again. Where a row is asked about as a whole, or a decoder is
beside the encoder, only special pieces stay; an encoder's masked words stay as they are, and what lies between them
is rewritten; a decoder, which is asked about every next piece, has each word rewritten within its own pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmctl.augment.tokens import word_numbers
from lmctl.core.batch import Batch, Targets, pad_rows, padding_mask
from lmctl.core.vocabulary import Rewrite, Vocabulary


class Row(NamedTuple):
    """One row after rewriting."""

    ids: np.ndarray
    """int64 [m]."""
    source: np.ndarray
    """int64 [m]: a place in the row before, for each piece one that it was made of."""
    places: np.ndarray
    """int64 [n]: where each piece of the row before is now; means nothing for those that were rewritten."""


@dataclass(frozen=True)
class Rewriting:
    """How rows of one task are rewritten."""

    rewrite: Rewrite
    vocabulary: Vocabulary
    room: int
    """Positions that a row may have; what does not fit is cut off where it was rewritten."""
    whole_rows: bool
    """The task asks about whole rows."""
    causal: bool
    """The network is a decoder."""

    def __call__(self, batch: Batch, real: Tensor, generators: Sequence[np.random.Generator]) -> Batch:
        """`batch` in the host's memory, `real` bool [R, L] as `real_positions` gives it, a generator for each row."""
        ids, width = batch.inputs["input_ids"].numpy(), batch.inputs["input_ids"].shape[1]
        pieces = [line[kept] for line, kept in zip(ids, real.numpy(), strict=True)]
        if self.causal and not self.whole_rows:
            changed = ids.copy()
            for row, (line, generator) in enumerate(zip(pieces, generators, strict=True)):
                changed[row, real[row].numpy()] = self._word_by_word(line, generator)
            return replace(batch, inputs=batch.inputs | {"input_ids": torch.from_numpy(changed)})
        here = not self.whole_rows and "decoder_input_ids" not in batch.inputs
        asked = np.zeros_like(ids, dtype=bool)
        if here:
            for target in batch.targets.values():
                asked.reshape(-1)[target.positions.numpy()] = True
        rows = [
            self._run_by_run(line, marks[: len(line)], max(self.room, width) - len(line), generator)
            for line, marks, generator in zip(pieces, asked, generators, strict=True)
        ]
        return self._batch(batch, rows, here)

    def _word_by_word(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """`ids` int64 [n] with each word rewritten and cut to as many pieces as it had, or followed by those of its
        own that are left."""
        changed, special = ids.copy(), self.vocabulary.special[ids]
        for word in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(word_numbers(ids, self.vocabulary))) + 1):
            if len(word) and not special[word].any():
                pieces = self.rewrite(ids[word], generator)[: len(word)]
                changed[word[: len(pieces)]] = pieces
        return changed

    def _run_by_run(self, ids: np.ndarray, asked: np.ndarray, slack: int, generator: np.random.Generator) -> Row:
        """`ids` int64 [n] with what lies between special pieces and words with an `asked` piece rewritten, in at most
        `slack` pieces more than it had."""
        words = word_numbers(ids, self.vocabulary)
        stays = np.zeros(len(words) + 1, dtype=bool)
        stays[words[self.vocabulary.special[ids] | asked]] = True
        kept = stays[words]
        places, parts, sources, length = np.zeros(len(ids), dtype=np.int64), [], [], 0
        for run in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(kept)) + 1):
            pieces, source = ids[run], run
            if len(run) and not kept[run[0]]:
                pieces = self.rewrite(pieces, generator)[: len(run) + slack]
                slack += len(run) - len(pieces)
                source = np.full(len(pieces), run[0])
            else:
                places[run] = length + np.arange(len(run))
            parts.append(pieces)
            sources.append(source)
            length += len(pieces)
        return Row(np.concatenate(parts), np.concatenate(sources), places)

    def _batch(self, batch: Batch, rows: Sequence[Row], here: bool) -> Batch:
        before = batch.inputs["input_ids"].shape[1]
        ids, lengths = pad_rows([row.ids for row in rows], self.vocabulary.pad)
        inputs = {name: value for name, value in batch.inputs.items() if name != "attention_mask"}
        inputs |= {"input_ids": torch.from_numpy(ids)} | padding_mask("attention_mask", lengths, ids.shape[1])
        if "token_type_ids" in inputs:
            segments = zip(inputs["token_type_ids"].numpy(), rows, strict=True)
            inputs["token_type_ids"] = torch.from_numpy(pad_rows([line[row.source] for line, row in segments], 0)[0])
        if not here:
            return replace(batch, inputs=inputs)
        places = np.zeros((len(rows), before), dtype=np.int64)
        for number, row in enumerate(rows):
            places[number, : len(row.places)] = number * ids.shape[1] + row.places
        moved = torch.from_numpy(places).view(-1)
        targets = {name: Targets(moved[t.positions], t.labels) for name, t in batch.targets.items()}
        return replace(batch, inputs=inputs, targets=targets)
