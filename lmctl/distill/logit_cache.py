"""Disk cache of teacher logits: computed once, used by every run that sees the same rows.

A row looks different in every epoch: other masks, other cuts. All of that is a function of (seed, epoch, row), so the
logits of one epoch are one entry, a *masking*, of the content-addressed cache. Its key has the teacher's weights, the
text, the tokenizer, the objective, the seed and the epoch, and nothing else. So jobs of a sweep that differ in student,
learning rate or temperature share it, and a longer run only adds maskings. Entries are written atomically.

A masking has, per row, the range of its targets, their checksum, and per term the columns of
`lmctl.distill.compact_logits`, memory-mapped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.cache import cached, found, identities
from lmctl.core.cache_check import Damaged
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, DataError, Stopped
from lmctl.core.mapped_arrays import mapping_in, npy_array, raw_array, save_npy
from lmctl.core.signals import Interrupted
from lmctl.distill.compact_logits import LogitLayout, compact, expand, layout
from lmctl.objective.base import Examples

KIND = "teacher"
"""Kind of the entries in the cache."""
FORMAT = 2
"""Format version, part of every key: raise it when the layout or the meaning of an entry changes."""

Answer: TypeAlias = Callable[[Batch], Mapping[str, Tensor]]
"""A teacher: from a batch to logits [N, V] of its targets, by term."""


class Masking:
    """Teacher logits of all rows in one epoch."""

    def __init__(self, folder: Path) -> None:
        """Open the masking in `folder`; Damaged if its files do not fit together."""
        meta = mapping_in(folder / "meta.json")
        try:
            self.layouts = {term: LogitLayout(*values) for term, values in meta["layouts"].items()}
            self.targets = {term: int(meta["targets"][term]) for term in self.layouts}
            self.rows = int(meta["rows"])
            columns = {term: how.columns for term, how in self.layouts.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged("meta.json is not of a teacher's answers") from error
        self.places = {term: npy_array(folder / f"{term}.places.npy", np.int64, self.rows, 2) for term in self.layouts}
        """By term, int64 [rows, 2]: first target and number of targets of each row."""
        self.checks = {term: npy_array(folder / f"{term}.checks.npy", np.uint32, self.rows) for term in self.layouts}
        """By term, uint32 [rows]: `checksums` of each row's targets."""
        self.columns = {
            term: {
                name: raw_array(folder / f"{term}.{name}.bin", dtype, self.targets[term], count)
                for name, (dtype, count) in columns[term].items()
            }
            for term in self.layouts
            if self.targets[term]
        }

    @property
    def bytes(self) -> int:
        """Size of the columns on disk."""
        return sum(self.targets[term] * how.bytes_per_target for term, how in self.layouts.items())


class Maskings:
    """Logits of several epochs, used cyclically: `epoch` is in masking `epoch % len`."""

    def __init__(self, maskings: Sequence[Masking]) -> None:
        self.maskings = maskings

    def __len__(self) -> int:
        return len(self.maskings)

    @property
    def bytes(self) -> int:
        """Size of all of them on disk."""
        return sum(masking.bytes for masking in self.maskings)

    def answers(self, batch: Batch, term: str) -> CachedLogits:
        """Teacher logits of the targets of `term`, in host memory. DataError if the rows of `batch` differ from the
        cached ones."""
        if batch.rows is None:
            raise DataError("distill: these rows have no numbers, so the teacher's answers to them cannot be found")
        numbers, epochs = batch.rows.numbers, batch.rows.epochs % len(self)
        how = self.maskings[0].layouts[term]
        sums, parts = checksums(batch, term), []
        for row, (number, epoch) in enumerate(zip(numbers.tolist(), epochs.tolist(), strict=True)):
            masking = self.maskings[epoch]
            if masking.checks[term][number] != sums[row]:
                raise DataError(
                    f"distill: row {number} of epoch {epoch} of {batch.task} is not the one that the teacher saw",
                    f"delete {KIND}/ in the cache and have it made again, or teacher_cache=off",
                )
            start, count = masking.places[term][number].tolist()
            parts.append((masking, slice(start, start + count)))
        columns = {
            name: torch.from_numpy(_plain(np.concatenate([m.columns[term][name][where] for m, where in parts])))
            for name in how.columns
        }
        return CachedLogits(columns, how)


class CachedLogits(NamedTuple):
    """Compressed logits of N targets."""

    columns: dict[str, Tensor]
    """[N, ...] each."""
    how: LogitLayout

    def of(self, rows: slice, device: torch.device) -> Tensor:
        """Logits of the targets `rows`, float32 [n, V] on `device`."""
        return expand({name: values[rows].to(device) for name, values in self.columns.items()}, self.how)


def identity(masking: int, k: int | None, **parts: Any) -> dict[str, Any]:
    """Cache key of an entry: `parts` are JSON values by name (teacher, text, tokenizer, objective, seed, ...)."""
    return {"format": FORMAT, "k": k, "masking": masking, **parts}


def build(
    root: Path,
    key: Mapping[str, Any],
    examples: Examples,
    draws: CounterRng,
    rows_at_once: int,
    answer: Answer,
    tick: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Masking, bool]:
    """The entry of `key` (see `identity`), computed with `answer` on a cache miss; also returns whether it was a hit.

    `tick` is called with the number of rows done. A signal ends it at once, without an entry; with `Stopped` if earlier
    maskings are kept.
    """

    def make(folder: Path) -> None:
        lengths = examples.lengths
        order = np.arange(len(examples)) if lengths is None else np.argsort(lengths, kind="stable")
        writer = _Writer(folder, len(examples), key["k"])
        for first in range(0, len(order), rows_at_once):
            rows = order[first : first + rows_at_once]
            batch = examples.collate(rows, np.full(len(rows), key["masking"]), draws)
            writer.add(batch, rows, answer(batch))
            tick(first + len(rows))
        writer.finish()

    try:
        return cached(root, KIND, key, make, Masking, say)
    except Interrupted as signal:
        if not key["masking"]:
            raise
        raise Stopped(
            f"{signal.name} while the teacher was answering; finished maskings are kept, this one begins anew",
            "run the same command again",
        ) from None


def find(root: Path, key: Mapping[str, Any]) -> Masking:
    """The entry of `key`; ConfigError that names the differences from the nearest entry if there is none."""
    masking = found(root, KIND, key, Masking)
    if masking is not None:
        return masking
    raise ConfigError(
        f"teacher_cache=use: {nearest(root, key)}",
        "make it: teacher_cache=build (or auto), with the same settings otherwise",
    )


def nearest(root: Path, key: Mapping[str, Any]) -> str:
    """Explain a cache miss: what differs between `key` and the nearest entry in `root`."""
    others = identities(root, KIND)
    if not others:
        return f"there are no answers of any teacher in {root}"
    differing = [sorted(name for name in key.keys() | other.keys() if key.get(name) != other.get(name))
                 for other in others]  # fmt: skip
    fewest = min(differing, key=len)
    if not fewest:
        return f"the answers in {root} are damaged"
    return f"the nearest answers in {root} are of another {', another '.join(fewest)}"


def rows_of_targets(batch: Batch, term: str) -> np.ndarray:
    """Row of the batch that each target of `term` belongs to, int64 [N], ascending."""
    positions = batch.targets[term].positions.cpu().numpy()
    side = batch.inputs.get("decoder_input_ids", batch.inputs["input_ids"])
    rows, width = side.shape
    # For targets of whole rows the position is the row number; every row has at least one target.
    whole = len(positions) == rows and bool((positions == np.arange(rows)).all())
    return positions if whole else positions // width


def checksums(batch: Batch, term: str) -> np.ndarray:
    """Checksum of the labels of each row's targets, uint32 [R]."""
    labels, rows = batch.targets[term].labels.cpu().numpy(), rows_of_targets(batch, term)
    ends = np.searchsorted(rows, np.arange(len(batch.inputs["input_ids"]) + 1))
    return np.array([zlib.crc32(labels[a:b].tobytes()) for a, b in pairwise(ends)], dtype=np.uint32)


class _Writer:
    """Writes one masking; rows may come in any order."""

    def __init__(self, folder: Path, rows: int, k: int | None) -> None:
        self.folder, self.rows, self.k = folder, rows, k
        self.layouts: dict[str, LogitLayout] = {}
        self.targets: dict[str, int] = {}
        self.places: dict[str, np.ndarray] = {}
        self.checks: dict[str, np.ndarray] = {}
        self.files: dict[tuple[str, str], Any] = {}

    def add(self, batch: Batch, rows: np.ndarray, answers: Mapping[str, Tensor]) -> None:
        """Write the logits of the `rows` int64 [R] of `batch`."""
        for term, logits in answers.items():
            if term not in self.layouts:
                self._begin(term, int(logits.shape[-1]))
            counts = np.bincount(rows_of_targets(batch, term), minlength=len(rows))
            starts = self.targets[term] + counts.cumsum() - counts
            self.places[term][rows] = np.stack([starts, counts], axis=1)
            self.checks[term][rows] = checksums(batch, term)
            self.targets[term] += int(counts.sum())
            for name, values in compact(logits, self.layouts[term]).items():
                self.files[term, name].write(np.ascontiguousarray(values).tobytes())

    def _begin(self, term: str, pieces: int) -> None:
        self.layouts[term], self.targets[term] = layout(pieces, self.k), 0
        self.places[term] = np.zeros((self.rows, 2), dtype=np.int64)
        self.checks[term] = np.zeros(self.rows, dtype=np.uint32)
        for name in self.layouts[term].columns:
            self.files[term, name] = open(self.folder / f"{term}.{name}.bin", "wb")  # noqa: SIM115

    def finish(self) -> None:
        for file in self.files.values():
            file.close()
        for term in self.layouts:
            save_npy(self.folder / f"{term}.places.npy", self.places[term])
            save_npy(self.folder / f"{term}.checks.npy", self.checks[term])
        meta = {"rows": self.rows, "targets": self.targets, "layouts": self.layouts}
        (self.folder / "meta.json").write_text(json.dumps(meta))


def _plain(values: np.ndarray) -> np.ndarray:
    """As a signed dtype: torch hardly supports unsigned ones."""
    return values.astype(np.int64) if values.dtype.kind == "u" else values
