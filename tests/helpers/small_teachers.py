"""Teachers on disk, of every kind, that know the small tasks of `small_tasks.py`; untrained, which no lesson minds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small import tokenizer, vocabulary
from small_tasks import small_task

from lmctl.distill.curriculum import Curriculum
from lmctl.distill.logits import Logits
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.llama import Llama
from lmctl.model.modernbert import ModernBert
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.recurrent_classifier import BiLSTM
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.model.t5 import T5
from lmctl.model.transformer_mt import TransformerMT
from lmctl.plan import Plan
from lmctl.train.prepare import Prepared

MODELS: dict[str, Any] = {
    "bert": Bert(3, 48, 4, 96, max_positions=64),
    "bert small": Bert(2, 32, 4, 64, max_positions=64, dropout=0.1, attention_dropout=0.1),
    "modernbert": ModernBert(3, 48, 4, 96, max_positions=64),
    "gpt2": Gpt2(3, 48, 4, 96),
    "gpt2 small": Gpt2(2, 32, 4, 64),
    "llama": Llama(3, 48, 4, 2, 96),
    "lstm": RecurrentLM(1, 32),
    "bilstm": BiLSTM(1, 32, 32),
    "t5": T5(2, 2, 48, 4, 96),
    "t5 small": T5(1, 1, 32, 4, 64),
    "marian": TransformerMT(2, 2, 48, 4, 96, max_positions=64),
    "marian small": TransformerMT(1, 1, 32, 4, 64, max_positions=64),
    "rnn_mt": RecurrentMT(1, 1, 32, 32),
}


def heads_for(task: str) -> dict[str, int]:
    plan, prepared = small_task(task)
    store = prepared.corpora["corpus"].train
    return plan.mix.tasks["corpus"].objective.heads("corpus", store, prepared.vocabulary)


def teacher(folder: Path, model: str, task: str, labels: list[str] | None = None) -> str:
    """A model for `task`, saved; returns where."""
    place = folder / f"{model}-{task}".replace(" ", "-")
    if not place.exists():
        torch.manual_seed(7)
        network = MODELS[model].load(vocabulary(), heads_for(task))
        with torch.no_grad():  # answers that are worth something
            for parameter in network.parameters():
                parameter.mul_(3.0) if parameter.dim() > 1 else None
        network.pretrained().save_pretrained(place)
        if extra := network.extra_heads():
            save_file(extra, place / "extra_heads.safetensors")
        tokenizer().save_pretrained(place)
        if labels is not None:
            note = {"corpus": {"objective": "Classify", "reads": "labelled", "label_kind": "class", "labels": labels}}
            (place / "lmctl_tasks.json").write_text(json.dumps(note))
    return str(place)


def taught(task: str, teacher: str, lesson: Any = None, **changes: Any) -> tuple[Plan, Prepared]:
    """The small plan of `task` with a teacher; `lesson`: terms by name."""
    terms = lesson or {"logits": Logits(weight=0.5)}
    hard = changes.pop("hard", 0.5)
    rule = Curriculum(terms, hard=hard, chunk_mb=changes.pop("chunk_mb", 16.0), **changes.pop("rule", {}))
    rate = changes.pop("dropout", 0.0)
    return small_task(task, rate, **{"distill": rule, "teacher": (teacher,)} | changes)
