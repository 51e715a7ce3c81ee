"""Small tasks of every kind, each with a small model and text that suit it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from small import plan, prepared, store

from lmctl.core.batch import Batch, Targets
from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.mix.mix import Mix, Task
from lmctl.model.bert import Bert
from lmctl.model.electra import Electra
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.t5 import T5
from lmctl.model.transformer_mt import TransformerMT
from lmctl.objective.base import Examples
from lmctl.objective.classify import Classify
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.objective.rtd import ReplacedTokens
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.objective.translate import Translate
from lmctl.plan import Plan
from lmctl.train.prepare import Prepared, TokenizedCorpus


def labelled(kind: str, count: int, seed: int) -> TokenStore:
    """Rows of 3 to 20 words whose label is told by which words they are made of."""
    rng = random.Random(seed)
    labels = np.array([number % 3 for number in range(count)])
    lengths = [rng.randrange(3, 21) for _ in labels]
    text = [
        [" ".join(f"w{3 * rng.randrange(20) + label}" for _ in range(length))]
        for label, length in zip(labels.tolist(), lengths, strict=True)
    ]
    arrays = {"class": labels, "classes": np.eye(3, dtype=np.float32)[labels], "number": labels.astype(np.float32)}
    return replace(store(text), labels=arrays[kind], label_names=() if kind == "number" else ("a", "b", "c"))


def parallel(count: int, seed: int) -> TokenStore:
    """Rows of 3 to 12 words, and as their translation the same words with suffixes."""
    rng = random.Random(seed)
    lines = [[rng.randrange(60) for _ in range(rng.randrange(3, 13))] for _ in range(count)]
    return store([[" ".join(f"w{n}" for n in line), " ".join(f"w{n}s{n % 20}" for n in line)] for line in lines])


@cache
def text_of(task: str) -> Prepared:
    if task == "translate":
        corpus = TokenizedCorpus(parallel(48, 0), parallel(16, 1))
    elif task in ("class", "classes", "number"):
        corpus = TokenizedCorpus(labelled(task, 48, 0), labelled(task, 15, 1))
    else:
        return prepared()
    return replace(prepared(), corpora={"corpus": corpus})


def bert(dropout: float) -> Bert:
    return Bert(2, 32, 2, 64, max_positions=64, dropout=dropout, attention_dropout=dropout)


TASKS: dict[str, Any] = {
    "mlm": (MaskedLM(), bert),
    "mlm_nsp": (MaskedLMAndNextSentence(), bert),
    "rtd": (ReplacedTokens(), lambda rate: Electra(2, 32, 2, 64, 24, 0.5, 64, rate, rate)),
    "clm": (CausalLM(), lambda rate: Gpt2(2, 32, 2, 64, dropout=rate, attention_dropout=rate)),
    "clm_stream": (StreamedLM(), lambda rate: RecurrentLM(1, 32, dropout=rate, embedding_dropout=rate)),
    "class": (Classify(), bert),
    "classes": (Classify("classes"), bert),
    "number": (Classify("number"), bert),
    "translate": (Translate(), lambda rate: TransformerMT(1, 1, 32, 2, 64, max_positions=64, dropout=rate)),
    "t5": (Translate(), lambda rate: T5(1, 1, 32, 2, 64, dropout=rate)),
}


def small_task(task: str, dropout: float = 0.0, **changes: Any) -> tuple[Plan, Prepared]:
    """A plan that trains `task`, and its text."""
    objective, model = TASKS[task]
    own = plan(objective=objective, **{"model": model(dropout), "seq_len": 32} | changes)
    return own, text_of("translate" if task == "t5" else task)


def two_tasks(dropout: float = 0.0, **changes: Any) -> tuple[Plan, Prepared]:
    """Masked words and topics on one network, their losses in a learned balance."""
    own, words = small_task("mlm", dropout, **changes)
    mix = Mix({"corpus": Task(MaskedLM(), own.data), "topics": Task(Classify(), own.data)}, balance="uncertainty")
    corpora = {"corpus": words.corpora["corpus"], "topics": text_of("class").corpora["corpus"]}
    return replace(own, mix=mix), replace(words, corpora=corpora)


@dataclass
class Numbers(Examples):
    """Rows that are their own numbers, each `width` tokens."""

    task: str
    size: int
    width: float = 1.0
    lengths: np.ndarray | None = None
    tracks: int | None = None

    def __len__(self) -> int:
        return self.size

    @property
    def tokens_per_row(self) -> float:
        return self.width

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        ids = torch.from_numpy(np.stack([rows, epochs], axis=1))
        positions = torch.arange(len(rows))
        return Batch(self.task, {"input_ids": ids}, {"lm": Targets(positions, positions)}, int(len(rows) * self.width))


def task(weight: object = 1.0, **changes: object) -> Task:
    return Task(objective=None, data=None, weight=weight, **changes)  # type: ignore[arg-type]


def lengths(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 60, 500)
