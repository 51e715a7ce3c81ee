"""A corpus, a tokenizer and a plan small enough to train in a second, built without config or cache."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers

from lmctl.config.build import build
from lmctl.config.compose import conf_dir
from lmctl.config.groups import Run
from lmctl.config.schema import BatchShape, Budget, Evaluation
from lmctl.config.table import bases, defaults, groups_of
from lmctl.core.batch import Document
from lmctl.core.token_store import TokenStore, write_store
from lmctl.core.vocabulary import Vocabulary
from lmctl.data.base import Source
from lmctl.mix.mix import Mix, Task
from lmctl.model.bert import Bert
from lmctl.objective.base import Objective
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.optim.adamw import AdamW
from lmctl.plan import Plan
from lmctl.precision.fp32 import Fp32
from lmctl.runner.places import Cpu
from lmctl.schedule.shapes import Constant
from lmctl.train.learner import Learner
from lmctl.train.prepare import Prepared, TokenizedCorpus
from lmctl.train.trainer import Trainer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SUMMARY: dict[str, Any] = {
    "valid": {},
    "valid_metrics": {},
    "valid_rows": {},
    "baseline": {},
    "baseline_is": {},
    "parameters": {"total": 1},
    "steps": 5,
    "exported_step": 5,
    "tokens": 1,
}
"""What a model card wants to know of a run."""
WORDS = [f"w{i}" for i in range(60)] + [f"##s{i}" for i in range(20)]


class NoText(Source):
    """Stands where a source belongs in a plan whose text is prepared already."""

    yields = "documents"

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def rows(self, split: str) -> Any:
        return iter(())

    def describe(self) -> str:
        return "nothing"


def tokenizer() -> Any:
    """A WordPiece tokenizer whose words are w0 ... w59, each possibly followed by a suffix s0 ... s19."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: i for i, piece in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {
        name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def vocabulary() -> Vocabulary:
    special = np.arange(len(SPECIAL + WORDS)) < len(SPECIAL)
    continues = np.array([piece.startswith("##") for piece in SPECIAL + WORDS])
    return Vocabulary(len(special), 0, 1, 2, 3, 4, special, continues)


def documents(count: int, seed: int = 0) -> list[Document]:
    """Documents that differ in their favourite words, so that both objectives have something to learn."""
    rng = random.Random(seed)
    result = []
    for number in range(count):
        favourite = [f"w{(number * 7 + k) % 60}" for k in range(12)]
        result.append(
            [
                " ".join(rng.choice(favourite) + rng.choice(["", "", f"s{rng.randrange(20)}"]) for _ in range(length))
                for length in (rng.randrange(3, 12) for _ in range(rng.randrange(2, 9)))
            ]
        )
    return result


def store(text: list[Document]) -> TokenStore:
    folder = Path(tempfile.mkdtemp())
    write_store(folder, text, tokenizer().backend_tokenizer)
    return TokenStore.open(folder)


@cache
def prepared() -> Prepared:
    corpus = TokenizedCorpus(store(documents(40)), store(documents(8, seed=1)))
    return Prepared(tokenizer(), vocabulary(), {"corpus": corpus}, {"tokenizer": "small", "corpus": "small"})


@cache
def default(group: str) -> Any:
    """The option that a group has by default, as its file has it."""
    node = OmegaConf.create({group: OmegaConf.load(conf_dir() / group / f"{defaults(Run)[group]}.yaml")})
    return build(node[group], bases(Run)[group])


def plan(**changes: Any) -> Plan:
    """A plan that differs from the small one in `changes`; `objective` and `batch` fields may be given directly."""
    objective = changes.pop("objective", MaskedLMAndNextSentence())
    shape = {"size": 8, "seq_len": 32} | {k: changes.pop(k) for k in ("size", "micro", "seq_len") if k in changes}
    own = {
        "model": changes.pop("model", Bert(2, 32, 2, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)),
        "data": NoText(),
        "mix": Mix({"corpus": Task(objective, NoText())}),
        "optim": AdamW(lr=3e-3),
        "runner": Cpu(),
    }
    others = {name: default(name) for name in groups_of(Run) if name not in own}
    base = Plan(
        **own,
        **others,
        budget=Budget(steps=5),
        batch=BatchShape(**shape),
        eval=Evaluation(rows=16),
        run_dir="runs/small",
    )
    return replace(base, **changes)


def learner_of(network: Any, objective: Objective, task: str = "corpus") -> Learner:
    """What trains `network` on one task in float32."""
    return Learner(network, {task: objective}, Fp32(), torch.device("cpu"))


def weights(trainer: Trainer) -> torch.Tensor:
    """All parameters of its network, end to end."""
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


def moves(processes: Any, **changes: Any) -> dict[str, torch.Tensor]:
    """How far each parameter goes in a first step."""
    once = {"schedule": Constant(), "clip_norm": None, "budget": Budget(steps=1)}
    trainer = Trainer(plan(**once | changes), prepared(), processes)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    list(trainer.steps())
    return {name: p.detach() - before[name] for name, p in trainer.network.named_parameters()}


def poison(trainer: Any, value: float, number: int | None = None) -> None:
    """Make the loss of the `number`-th pass forward, or of every one, huge or not finite."""
    calls: list[Learner] = []

    def poisoned(learner: Learner, given: Any, losses: Any) -> Any:
        calls.append(learner)
        return losses._replace(total=losses.total * value) if number in (None, len(calls)) else losses

    trainer.learner.register_forward_hook(poisoned)
