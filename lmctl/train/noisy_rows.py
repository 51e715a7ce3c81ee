"""Augmentation of a micro-batch with unchanged targets, for an adversary that compares clean and noisy rows.

Tokens with a target must be found again after rewriting. For classification, and for encoder-decoders, any text may
change and only special tokens stay. For masked language models the words with a target stay as well, and the text
between them is rewritten. For decoders, where every next token is a target, each word keeps its number of tokens.
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


class RewrittenRow(NamedTuple):
    """One row after augmentation, aligned with the row before."""

    ids: np.ndarray
    """Token ids, int64 [m]."""
    source: np.ndarray
    """Alignment int64 [m]: for each token, a position in the old row that it was made from."""
    places: np.ndarray
    """Alignment int64 [n]: new position of each old token; undefined for rewritten tokens."""


@dataclass(frozen=True)
class Rewriting:
    """Augmentation of the rows of one task."""

    rewrite: Rewrite
    vocabulary: Vocabulary
    room: int
    """Maximum length of a row; rewritten text is truncated to it."""
    whole_rows: bool
    """Whether targets belong to whole rows (classification)."""
    causal: bool
    """Whether the network is a decoder."""

    def __call__(self, batch: Batch, real: Tensor, generators: Sequence[np.random.Generator]) -> Batch:
        """`batch` in host memory, `real` bool [R, L] from `real_positions`, one generator per row."""
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
        """Rewrite each word of `ids` int64 [n] and truncate it to its old number of tokens; if it became shorter, its
        old tokens fill the rest."""
        changed, special = ids.copy(), self.vocabulary.special[ids]
        every = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(word_numbers(ids, self.vocabulary))) + 1)
        words = [word for word in every if len(word) and not special[word].any()]
        for word, new in zip(
            words, self.rewrite.all([ids[word] for word in words], [generator] * len(words)), strict=True
        ):
            pieces = new[: len(word)]
            changed[word[: len(pieces)]] = pieces
        return changed

    def _run_by_run(
        self, ids: np.ndarray, asked: np.ndarray, slack: int, generator: np.random.Generator
    ) -> RewrittenRow:
        """Rewrite the text of `ids` int64 [n] between special tokens and words with an `asked` token (one with a
        target), with at most `slack` tokens more than before."""
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
        return RewrittenRow(np.concatenate(parts), np.concatenate(sources), places)

    def _batch(self, batch: Batch, rows: Sequence[RewrittenRow], here: bool) -> Batch:
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
