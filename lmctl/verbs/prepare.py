"""`lmctl prepare`: train the tokenizer, build the token cache, print its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmctl.config.groups import PrepareConfig
from lmctl.config.verb import NOTHING_TO_SAVE, OWN_TEXT, Verb

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lmctl.data.base import Source
    from lmctl.train.prepare import Corpus, Prepared


class Prepare(Verb[PrepareConfig]):
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
    interrupted = NOTHING_TO_SAVE
    alone = OWN_TEXT

    def read(self, cfg: DictConfig) -> PrepareConfig:
        """As it stands, but with checkpoints in the place of runs that are not finished."""
        from lmctl.train.unfinished import with_models

        return super().read(with_models(cfg, lambda: self.check(cfg)))

    def run(self, config: PrepareConfig) -> None:
        """Prepare what `lmctl train` with the same data, mix and tokenizer will read."""
        from lmctl.train.display import Display, quiet_libraries
        from lmctl.train.prepare import prepare

        quiet_libraries()
        display = Display()
        with display.watching():
            prepared = prepare(config.tokenizer, config.mix, config.cache_dir, display.say)
        for name, corpus in prepared.corpora.items():
            print(card(name, config.mix.tasks[name].data, corpus, prepared))


def card(name: str, source: Source, corpus: Corpus, prepared: Prepared) -> str:
    """What there is to know of a prepared corpus, in plain text."""
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
