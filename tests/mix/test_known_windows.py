"""Windows are what they were, to the bit, when their digests were written down: who goes on with a run in a later
version must meet the same rows, masks and noise."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import small

from lmctl.augment.span_crop import SpanCrop
from lmctl.augment.token_noise import TokenNoise
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Rewrite, Vocabulary
from lmctl.mix.mix import Mix, Task
from lmctl.mix.stream import MixStream, Position
from lmctl.objective.base import Material, Objective
from lmctl.objective.classify import Classify
from lmctl.objective.clm import CausalLM
from lmctl.objective.denoise import Denoise
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.objective.mlm_sop import MaskedLMAndSentenceOrder
from lmctl.objective.rtd import ReplacedTokens
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.objective.translate import Translate

ROWS, SEQ_LEN, WINDOWS = 6, 20, 5

CELLS: dict[str, tuple[Objective, str, str]] = {
    "mlm": (MaskedLM(), "encoder", "445ad5b3185c"),
    "mlm_words": (MaskedLM(whole_words=True), "encoder", "0b51324436ef"),
    "mlm_dropout": (MaskedLM(), "encoder", "d84465ed30e8"),
    "nsp": (MaskedLMAndNextSentence(), "encoder", "42282efddf3d"),
    "nsp_crop": (MaskedLMAndNextSentence(whole_words=True), "encoder", "1c2b9ec90842"),
    "sop": (MaskedLMAndSentenceOrder(), "encoder", "5f95d8018c15"),
    "rtd": (ReplacedTokens(), "encoder", "acc032aa0428"),
    "clm": (CausalLM(), "decoder", "baad2dd6f55c"),
    "clm_noise": (CausalLM(), "decoder", "db74f52be146"),
    "stream": (StreamedLM(), "decoder", "eac65d29cf82"),
    "t5": (Denoise(), "seq2seq", "c08c79beea82"),
    "t5_dropout": (Denoise(), "seq2seq", "0659d405c1d1"),
    "bart": (Denoise("bart"), "seq2seq", "0f8011aa04c9"),
    "bart_crop": (Denoise("bart"), "seq2seq", "44a5d0a8720b"),
    "classify": (Classify(), "encoder", "42e66170072d"),
    "classify_noise": (Classify(), "decoder", "0b7c98672c8d"),
    "pairs": (Classify(), "encoder", "74927ed60996"),
    "translate": (Translate(), "seq2seq", "a65d23749421"),
    "translate_dropout": (Translate(), "seq2seq", "8f32b23d65d6"),
}
"""Objective, family, and the digest of its windows."""
REWRITES = {"dropout": WordDropout(0.3), "crop": SpanCrop(0.5), "noise": TokenNoise("bert")}


def vocabulary() -> Vocabulary:
    return replace(small.vocabulary(), sentinels=np.arange(70, 80))


@cache
def store(texts: int) -> TokenStore:
    """Documents, or rows of one text or two with a label."""
    made = small.documents(40)
    if texts:
        made = [document[:texts] for document in made]
    return replace(small.store(made), labels=np.arange(40) % 2, label_names=("a", "b"))


@pytest.mark.parametrize("name", CELLS)
def test_windows_are_what_they_were(name):
    objective, family, known = CELLS[name]
    kind, _, augment = name.partition("_")
    rewrite: Rewrite | None = None
    if augment in REWRITES:
        rewrite = REWRITES[augment].rewriter(small.tokenizer(), vocabulary())
    source = store({"classify": 1, "pairs": 2, "translate": 2}.get(kind, 0))
    examples = objective.examples(Material("t", source, vocabulary(), family, SEQ_LEN, ROWS, rewrite))  # type: ignore[arg-type]
    stream = MixStream(Mix({"t": Task(objective, small.NoText())}), {"t": examples}, 3, ROWS, None)
    digest, at = hashlib.sha256(), Position()
    for number in range(WINDOWS):
        window = stream.window(at, 0.0, 4, 0, 1)
        at = window.after if number < 3 else Position({"t": 3 * len(examples) - 2})  # across epochs, too
        for batch in window.batches:
            tensors = [
                *batch.inputs.values(),
                *(t for target in batch.targets.values() for t in (target.positions, target.labels)),
            ]
            for tensor in tensors:
                digest.update(str((tensor.dtype, tuple(tensor.shape))).encode() + tensor.numpy().tobytes())
    assert digest.hexdigest()[:12] == known
