"""`lmctl prepare`: train the tokenizer, build the token cache, print its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmctl.config.groups import PrepareConfig
from lmctl.verbs._texts import TextVerb

if TYPE_CHECKING:
    from lmctl.data.base import Source
    from lmctl.train.prepare import Prepared, TokenizedCorpus


class Prepare(TextVerb[PrepareConfig]):
    purpose = "Train the tokenizer, build the token cache, and print a card of both."
    examples = (
        "lmctl prepare",
        "lmctl prepare data=text data.path=corpus/ tokenizer=bpe",
        "lmctl prepare -m tokenizer.vocab_size=4096,8192",
    )
    often = (
        "data.path", "tokenizer", "tokenizer.vocab_size", "mix", "batch.seq_len", "cache_dir",
    )  # fmt: skip
    schema = PrepareConfig
    prints = False

    def run(self, config: PrepareConfig) -> None:
        """Train the tokenizer and build the token cache that `lmctl train` with the same data, mix and tokenizer
        reads."""
        prepared = self.prepared(config)
        for name, corpus in prepared.corpora.items():
            print(card(name, config.mix.tasks[name].data, corpus, prepared))


def card(name: str, source: Source, corpus: TokenizedCorpus, prepared: Prepared) -> str:
    """A text summary of a prepared corpus."""
    import numpy as np

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
