"""Data preparation: split, tokenizer training and tokenisation to token stores, all in the content-addressed cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lmctl.core import progress
from lmctl.core.batch import Split
from lmctl.core.cache import cached, root_of
from lmctl.core.cache_check import Damaged
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.pretrained_files import first_line
from lmctl.core.token_store import FORMAT, TokenStore, add_labels, write_store
from lmctl.core.vocabulary import Vocabulary
from lmctl.data.base import Source
from lmctl.data.columns import Columns
from lmctl.data.file_status import FileStates, check_unchanged
from lmctl.data.kept_rows import keeping
from lmctl.mix.mix import Mix, Task
from lmctl.objective.base import Objective
from lmctl.objective.pairs import no_pairs
from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.tokenizer.vocabulary import content_fingerprint, vocabulary
from lmctl.train.class_labels import Labels, check_repeated, labelled, one_label

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Say = Callable[[str], None]


@dataclass(frozen=True)
class TokenizedCorpus:
    """Tokenised text of one task, by split."""

    train: TokenStore
    valid: TokenStore


@dataclass(frozen=True)
class Prepared:
    """Tokenizer and tokenised text of all tasks."""

    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    corpora: dict[str, TokenizedCorpus]
    """By task; for a streamed source `train` is the first block."""
    fingerprints: dict[str, str]
    """Fingerprints of the tokenizer and of each task's text, which must not change when a run is resumed."""


class _Text(NamedTuple):
    """A task's text before it is read."""

    state: FileStates
    fingerprint: dict[str, Any]
    size: int
    """Bytes of one reading: the same for every later one."""


def _text(name: str, source: Source) -> _Text:
    state = source.state()
    with progress.stage(f"{name}: looking for it in the cache") as stage:
        return _Text(state, dict(source.fingerprint()), stage.total)


def prepare(spec: TokenizerSpec, mix: Mix, cache_dir: str | None, say: Say) -> Prepared:
    """Build tokenizer and token stores for a run's tasks, or find them in the cache; `say` reports which."""
    root = root_of(cache_dir)
    for name, task in mix.tasks.items():
        check_kind(name, task, len(mix.tasks) == 1)
    texts = {name: _text(name, task.data) for name, task in mix.tasks.items()}
    with keeping(root):  # what is parsed once is not parsed again
        tokenizer = _tokenizer(root, spec, mix, texts, say)
        pieces = content_fingerprint(tokenizer)
        corpora = {}
        for name, task in mix.tasks.items():
            train = _store(root, name, task, texts[name], "train", tokenizer, pieces, None, say)
            _check_labels(name, task.objective, train)
            valid = _store(root, name, task, texts[name], "valid", tokenizer, pieces, train.label_names, say)
            corpora[name] = TokenizedCorpus(train, valid)
    fingerprints = {"tokenizer": pieces} | {name: _canonical(text.fingerprint) for name, text in texts.items()}
    return Prepared(tokenizer, vocabulary(tokenizer), corpora, fingerprints)


NEAREST = {
    "documents": "running text: data=text data.path=...",
    "labelled": "text with labels: data=table data.path=FILE data.text=COLUMN data.label=COLUMN",
    "parallel": "text with its translation: data=parallel data.source=FILE data.target=FILE",
}


def check_kind(name: str, task: Task, alone: bool) -> None:
    """ConfigError unless the task's source has the rows that its objective reads; `alone`: it is the only task."""
    wanted, given = task.objective.reads, task.data.yields
    if wanted != given:
        own = None
        if wanted == "labelled" and isinstance(task.data, Columns):
            own = task.data.how_to_label("" if alone else f"mix.tasks.{name}.")
        raise ConfigError(
            f"mix.tasks.{name}: {type(task.objective).__name__} reads {wanted} rows, and {type(task.data).__name__} "
            f"as configured yields {given}",
            own or NEAREST[wanted],
        )


def _check_labels(name: str, objective: Objective, train: TokenStore) -> None:
    if objective.label_kind in ("class", "classes") and len(train.label_names) < 2:
        raise one_label(name, train.label_names[0] if train.label_names else None)


def _tokenizer(
    root: Path, spec: TokenizerSpec, mix: Mix, texts: Mapping[str, _Text], say: Say
) -> PreTrainedTokenizerFast:
    extra = extra_pieces(mix)
    key = tokenizer_key(spec, mix, {name: text.fingerprint for name, text in texts.items()})

    def sentences() -> Iterator[str]:
        for task in mix.tasks.values():
            yield from chain.from_iterable(row.texts for row in progress.counted(task.data.rows("train")))

    def make(folder: Path) -> None:
        for name, task in mix.tasks.items():
            with progress.stage(f"{name}: reading", texts[name].size, noun=_noun(task)):
                _look(name, task)
        nouns = {_noun(task) for task in mix.tasks.values()}
        size, noun = sum(text.size for text in texts.values()), "documents and rows"
        with progress.stage("tokenizer: reading", size, noun=nouns.pop() if len(nouns) == 1 else noun):
            tokenizer = spec.obtain(sentences())
        for name, task in mix.tasks.items():
            check_unchanged(texts[name].state, task.data.state())
        if dict(spec.identity()) != key["spec"]:
            raise DataError("the tokenizer's files changed while they were read", "run the same command again")
        add_pieces(tokenizer, extra)
        tokenizer.save_pretrained(folder)

    tokenizer, hit = cached(root, "tokenizer", key, make, load_tokenizer, say)
    if not hit:  # on a cache hit the text is not read
        for name, task in mix.tasks.items():
            say(f"{name}: {task.data.describe()}")
    wanted = spec.identity().get("vocab_size")
    short = f" (asked for {wanted:,}: the text gives no more)" if wanted and len(tokenizer) < wanted else ""
    origin = f"those of {spec.path}" if isinstance(spec, Pretrained) else _found(hit)
    say(
        "\n  ".join(
            [f"tokenizer: {len(tokenizer):,} pieces{short}, {origin}", *tokenizer.init_kwargs.get("lmctl_notes", [])]
        )
    )
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a cache entry; Damaged if it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception
        raise Damaged(f"its tokenizer cannot be read: {first_line(error)}") from error


def _look(name: str, task: Task) -> None:
    """Check the data before slow work: DataError if a task's labels are not valid, or if all of its documents are too
    short. Reads the whole source once, which the split needs anyway."""
    if task.data.streamed:
        return
    rows = progress.counted(task.data.rows("train"))
    if task.objective.label_kind is not None and declared_labels(task) is None:
        check_repeated(rows, task.objective.label_kind, name)
    elif task.objective.pairs_sentences and all(len(row.texts) < 2 for row in rows):
        raise no_pairs()
    else:
        next(rows, None)


def extra_pieces(mix: Mix) -> list[str]:
    """Special tokens that the objectives of `mix` need besides the usual five, each once."""
    return list(dict.fromkeys(piece for task in mix.tasks.values() for piece in task.objective.pieces))


def add_pieces(tokenizer: PreTrainedTokenizerFast, pieces: Sequence[str]) -> None:
    """Add those of `pieces` that `tokenizer` lacks, as special tokens."""
    known = tokenizer.get_vocab()
    if missing := [piece for piece in pieces if piece not in known]:
        tokenizer.add_tokens(missing, special_tokens=True)


def tokenizer_key(spec: TokenizerSpec, mix: Mix, texts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Cache key of a run's tokenizer; `texts`: fingerprints of the tasks' sources."""
    extra = extra_pieces(mix)
    key = {"spec": dict(spec.identity()), "texts": sorted(map(_canonical, texts.values()))}
    return key | ({"extra": extra} if extra else {})


def declared_labels(task: Task) -> tuple[str, ...] | None:
    """Class names that the source declares, or None."""
    return task.data.label_names or None


def store_key(
    task: Task, text: Mapping[str, Any], split: Split, pieces: str, label_names: Sequence[str] | None
) -> dict[str, Any]:
    """Cache key of one split's token store. `text`: the source's fingerprint; `pieces`: the tokenizer's; validation
    uses the label names of the training split."""
    key: dict[str, Any] = {"format": FORMAT, "text": dict(text), "split": split, "tokenizer": pieces}
    if task.objective.label_kind is not None:
        key |= {"labels": task.objective.label_kind, "names": None if label_names is None else list(label_names)}
    return key


def _store(
    root: Path,
    name: str,
    task: Task,
    text: _Text,
    split: Split,
    tokenizer: PreTrainedTokenizerFast,
    pieces: str,
    label_names: Sequence[str] | None,
    say: Say,
) -> TokenStore:
    kind, what = task.objective.label_kind, _noun(task)
    labels = None
    if kind is not None:
        if split == "train":
            label_names = declared_labels(task)
        labels = Labels(kind, label_names)

    def make(folder: Path) -> None:
        left_out: list[str] = []
        with progress.stage(f"{name}: reading", text.size, noun=what):
            next(task.data.rows(split), None)  # makes the split, if it is not cached yet
        with progress.stage(f"{name}/{split}: tokenising", text.size, noun=what):
            write_store(folder, _documents(task.data, split, labels, left_out), tokenizer.backend_tokenizer)
        check_unchanged(text.state, task.data.state())
        if labels is not None:
            add_labels(folder, *labels.arrays())
        if left_out:
            rows = f"{len(left_out):,} row{'s' * (len(left_out) != 1)}"
            say(f"{name}/{split}: {rows} left out for their labels, the first: {left_out[0]}")

    key = store_key(task, text.fingerprint, split, pieces, label_names)
    store, hit = cached(root, "tokens", key, make, TokenStore.open, say)
    if not len(store):
        raise DataError(f"the {split} split of {name} has no tokens", "give more text")
    classes = f", {len(store.label_names):,} classes" if store.label_names else ""
    part = ", first block" if split == "train" and task.data.streamed else ""
    say(
        f"{name}/{split}{part}: {len(store.documents) - 1:,} {what}, {len(store.sentences) - 1:,} "
        f"{'sentences' if what == 'documents' else 'texts'}{classes}, {len(store):,} tokens, {_found(hit)}"
    )
    return store


def _documents(source: Source, split: Split, labels: Labels | None, left_out: list[str]) -> Iterator[list[str]]:
    rows = progress.counted(source.rows(split))
    if labels is None:
        return (row.texts for row in rows)
    return labelled(rows, labels, source.on_bad_row == "skip", left_out)


def _noun(task: Task) -> str:
    return "documents" if task.objective.reads == "documents" else "rows"


def _found(hit: bool) -> str:
    return "cache hit" if hit else "cache miss: built"


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
