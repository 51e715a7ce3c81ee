"""Small teachers in directories, as lmctl exports them, for plans of tests/helpers/small.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small import plan, prepared, tokenizer, vocabulary

from lmctl.distill.curriculum import Curriculum
from lmctl.distill.logits import Logits
from lmctl.model.base import ModelSpec
from lmctl.model.bert import Bert
from lmctl.objective.mlm import MaskedLM
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.train.trainer import Trainer

BIG = Bert(3, 32, 2, 64, max_positions=64)


def save_teacher(folder: Path, spec: ModelSpec = BIG, heads: dict[str, int] | None = None, seed: int = 7) -> Path:
    """A random model of a run's shape; its answers are as sharp as trained ones."""
    torch.manual_seed(seed)
    network = spec.load(vocabulary(), heads or {"mlm": vocabulary().size})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    network.model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def taught(teacher: Path, **changes: Any) -> Plan:
    """A plan that learns from the answers of the model in `teacher`."""
    lesson = changes.pop("lesson", Logits(weight=0.5, temperature=2.0))
    rule = Curriculum({"logits": lesson}, hard=changes.pop("hard", 0.5))
    return plan(**{"objective": MaskedLM(), "teacher": (str(teacher),), "distill": rule} | changes)


def trainer_of(some: Plan) -> Trainer:
    return Trainer(some, prepared(), Processes(on_cpu=True))


PAIRS = [["the cat sits", "a b c"], ["dog runs on", "d e"], ["red mat", "f"], ["blue", "g h i j"]]
DOCUMENTS = [["the cat sits on the mat .", "the dog runs on the red mat ."], ["blue cat"], ["a b c d e f g h i j k"]]


def silent(line):
    pass
