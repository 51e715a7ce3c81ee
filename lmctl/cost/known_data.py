"""A run's data as far as it is known without reading it, with a list of the assumptions.

Tokenizer and token stores come from the cache, or are synthetic stand-ins of the requested size. Finding text in the
cache requires hashing it, so this is done only for sources that are part of Python or lmctl (`embedded`), unless
reading is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lmctl.core.cache import found, root_of
from lmctl.core.errors import DataError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.cost import synthetic_text
from lmctl.mix.mix import Mix, Task
from lmctl.objective.base import Objective
from lmctl.plan import Plan
from lmctl.tokenizer.vocabulary import content_fingerprint, vocabulary
from lmctl.train.prepare import (
    Prepared,
    TokenizedCorpus,
    add_pieces,
    declared_labels,
    extra_pieces,
    load_tokenizer,
    store_key,
    tokenizer_key,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STANDIN_ROWS = 64
"""Number of rows of a synthetic text."""


@dataclass(frozen=True)
class Known:
    """The data of a run, real or synthetic."""

    prepared: Prepared
    """Its `tokenizer` is None if it is not known."""
    real: frozenset[str]
    """Tasks with real rows."""
    assumed: tuple[str, ...]
    """Assumptions, as text."""

    @property
    def vocabulary(self) -> Vocabulary:
        return self.prepared.vocabulary

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        return self.prepared.tokenizer


def look(plan: Plan, read: bool, rows: int = STANDIN_ROWS) -> Known:
    """The data known for `plan`; `read`: whether the user's data may be read (hashed, to find it in the cache).
    Synthetic text has at least `rows` rows."""
    root = root_of(plan.cache_dir)
    texts = _fingerprints(plan.mix, read)
    tokenizer = _tokenizer(root, plan, texts)
    assumed = []
    if tokenizer is not None:
        pieces, print_ = vocabulary(tokenizer), content_fingerprint(tokenizer)
    else:
        extra = extra_pieces(plan.mix)
        size = int(plan.tokenizer.identity()["vocab_size"]) + len(extra)
        pieces, print_ = synthetic_text.vocabulary(size, len(extra)), "stand-in"
        assumed.append(f"assumed: a vocabulary of {size:,} pieces, as many as tokenizer.vocab_size allows")
    corpora, real = {}, set()
    for name, task in plan.mix.tasks.items():
        corpus = _corpus(root, task, texts.get(name), print_) if tokenizer is not None else None
        if corpus is not None:
            real.add(name)
        else:
            corpus = _standin(task, rows, plan.batch.seq_len, pieces)
            assumed.append(f"assumed: {name} has rows of {plan.batch.seq_len} positions{_classes(task.objective)}")
        corpora[name] = corpus
    prepared = Prepared(cast("Any", tokenizer), pieces, corpora, {"tokenizer": print_})
    return Known(prepared, frozenset(real), tuple(assumed))


def _classes(objective: Objective) -> str:
    return f", {synthetic_text.CLASSES} classes" if objective.label_kind in ("class", "classes") else ""


def _fingerprints(mix: Mix, read: bool) -> dict[str, Mapping[str, Any]]:
    """Fingerprints of the sources that may be read, by task."""
    texts: dict[str, Mapping[str, Any]] = {}
    for name, task in mix.tasks.items():
        if read or task.data.embedded:
            try:
                texts[name] = _fingerprint(repr(task.data), task.data)
            except DataError:  # a plan is possible without the data
                continue
    return texts


_prints: dict[str, Mapping[str, Any]] = {}


def _fingerprint(name: str, source: Any) -> Mapping[str, Any]:
    """Cached: a grid needs the same ones for every cell."""
    if name not in _prints:
        _prints[name] = source.fingerprint()
    return _prints[name]


def _tokenizer(root: Path, plan: Plan, texts: Mapping[str, Mapping[str, Any]]) -> PreTrainedTokenizerFast | None:
    """The tokenizer of the run, if it exists."""
    if "vocab_size" not in plan.tokenizer.identity():  # pre-trained: loaded directly
        tokenizer = plan.tokenizer.obtain(iter(()))
        add_pieces(tokenizer, extra_pieces(plan.mix))
        return tokenizer
    if set(texts) != set(plan.mix.tasks):
        return None
    return found(root, "tokenizer", tokenizer_key(plan.tokenizer, plan.mix, texts), _load)


@cache
def _load(folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(folder)


def _corpus(root: Path, task: Task, text: Mapping[str, Any] | None, pieces: str) -> TokenizedCorpus | None:
    """The task's tokenised text, if it is in the cache."""
    if text is None:
        return None
    train = found(root, "tokens", store_key(task, text, "train", pieces, declared_labels(task)), TokenStore.open)
    if train is None:
        return None
    valid = found(root, "tokens", store_key(task, text, "valid", pieces, train.label_names), TokenStore.open)
    return None if valid is None else TokenizedCorpus(train, valid)


def _standin(task: Task, rows: int, seq_len: int, pieces: Vocabulary) -> TokenizedCorpus:
    store = synthetic_text.store(task.objective.reads, task.objective.label_kind, rows, seq_len, pieces)
    return TokenizedCorpus(store, store)
