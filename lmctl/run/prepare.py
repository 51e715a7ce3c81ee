"""From the plan's text to token stores: split, train the tokenizer, tokenise, each kept in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.cache import cached, default_root
from lmctl.core.errors import DataError
from lmctl.core.store import FORMAT, TokenStore, write_store
from lmctl.core.types import Source, Split, TokenizerSpec
from lmctl.core.vocabulary import Vocabulary
from lmctl.tokenizer.vocabulary import content_fingerprint, vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Say = Callable[[str], None]


@dataclass(frozen=True)
class Corpus:
    """One task's text, tokenised."""

    train: TokenStore
    valid: TokenStore


@dataclass(frozen=True)
class Prepared:
    """All that training needs of text."""

    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    corpora: dict[str, Corpus]
    fingerprints: dict[str, str]
    """Of the tokenizer and of each task's text; a run resumes only on the same ones."""


def prepare(spec: TokenizerSpec, sources: dict[str, Source], cache_dir: str | None, say: Say) -> Prepared:
    """Tokenizer and stores for the sources of a run's tasks, made or found in the cache; `say` hears which."""
    root = Path(cache_dir) if cache_dir else default_root()
    texts = {task: dict(source.fingerprint()) for task, source in sources.items()}
    tokenizer = _tokenizer(root, spec, sources, texts, say)
    pieces = content_fingerprint(tokenizer)
    corpora = {
        task: Corpus(*(_store(root, task, source, texts[task], split, tokenizer, pieces, say) for split in SPLITS))
        for task, source in sources.items()
    }
    fingerprints = {"tokenizer": pieces} | {task: json.dumps(text, sort_keys=True) for task, text in texts.items()}
    return Prepared(tokenizer, vocabulary(tokenizer), corpora, fingerprints)


SPLITS: tuple[Split, Split] = ("train", "valid")


def _tokenizer(
    root: Path, spec: TokenizerSpec, sources: dict[str, Source], texts: dict[str, dict[str, Any]], say: Say
) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    def sentences() -> Iterator[str]:
        for source in sources.values():
            yield from chain.from_iterable(source.documents("train"))

    def make(folder: Path) -> None:
        spec.obtain(sentences()).save_pretrained(folder)

    identity = dict(spec.identity())
    folder, hit = cached(root, "tokenizer", {"spec": identity, "texts": sorted(map(_canonical, texts.values()))}, make)
    if not hit:  # on a hit the text need not be read at all
        for task, source in sources.items():
            say(f"{task}: {source.describe()}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = identity.get("vocab_size")
    short = f" (asked for {wanted:,}: the text gives no more)" if wanted and len(tokenizer) < wanted else ""
    say(f"tokenizer: {len(tokenizer):,} pieces{short}, {_found(hit)}")
    return tokenizer


def _store(
    root: Path,
    task: str,
    source: Source,
    text: dict[str, Any],
    split: Split,
    tokenizer: PreTrainedTokenizerFast,
    pieces: str,
    say: Say,
) -> TokenStore:
    identity = {"format": FORMAT, "text": text, "split": split, "tokenizer": pieces}
    folder, hit = cached(
        root, "tokens", identity, lambda out: write_store(out, source.documents(split), tokenizer.backend_tokenizer)
    )
    store = TokenStore.open(folder)
    if not len(store):
        raise DataError(f"the {split} split of {task} has no tokens", "give more text")
    say(
        f"{task}/{split}: {len(store.documents) - 1:,} documents, {len(store.sentences) - 1:,} sentences, "
        f"{len(store):,} tokens, {_found(hit)}"
    )
    return store


def _found(hit: bool) -> str:
    return "cache hit" if hit else "cache miss: built"


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
