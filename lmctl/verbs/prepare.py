"""`lmctl prepare`: train the tokenizer, build the token cache, print its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from lmctl.config.build import build, check_root, section
from lmctl.config.groups import PrepareConfig
from lmctl.config.schema import BatchShape
from lmctl.data.base import Source
from lmctl.mix.mix import Mix
from lmctl.run.unfinished import with_models
from lmctl.tokenizer.base import TokenizerSpec

if TYPE_CHECKING:
    from lmctl.run.prepare import Corpus, Prepared


def run(cfg: DictConfig) -> None:
    """Prepare what `lmctl train` with the same data, mix and tokenizer will read."""
    check_root(cfg, PrepareConfig)
    cfg = with_models(cfg)
    trusted = ("lmctl.", *(f"{package}." for package in cfg.trusted))
    mix = build(cfg.mix, Mix, trusted=trusted)
    tokenizer = build(cfg.tokenizer, TokenizerSpec, trusted=trusted)
    section(cfg.batch, BatchShape)

    from lmctl.run.display import Display, quiet_libraries
    from lmctl.run.prepare import prepare

    quiet_libraries()
    display = Display()
    with display.watching():
        prepared = prepare(tokenizer, mix, cfg.cache_dir, display.say)
    for name, corpus in prepared.corpora.items():
        print(card(name, mix.tasks[name].data, corpus, prepared))


def card(name: str, source: Source, corpus: Corpus, prepared: Prepared) -> str:
    """What there is to know of a prepared corpus, in plain text."""
    vocabulary, lines = prepared.vocabulary, [f"{name}: {source.describe()}"]
    for split, store in (("train", corpus.train), ("valid", corpus.valid)):
        tokens, sentences = len(store), len(store.sentences) - 1
        lines.append(
            f"  {split:<6} {len(store.documents) - 1:>9,} documents  {sentences:>9,} sentences  {tokens:>12,} tokens  "
            f"{tokens / sentences:5.1f} tokens/sentence  {store.characters / tokens:4.2f} characters/token  "
            f"{store.histogram[vocabulary.unk] / tokens:6.2%} unknown"
        )
    used = int((corpus.train.histogram > 0).sum())
    common = [int(i) for i in np.argsort(-np.asarray(corpus.train.histogram))[:12]]
    pieces = "  ".join(prepared.tokenizer.convert_ids_to_tokens(common))
    lines.append(f"  pieces {vocabulary.size:,}, {used:,} of them used; most frequent: {pieces}")
    return "\n".join(lines)
