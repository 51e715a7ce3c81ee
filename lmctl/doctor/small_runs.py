"""Small training runs on made-up text, for proofs, by the trainer of `lmctl train` itself."""

from __future__ import annotations

import random
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmctl.config.compose import Composer
from lmctl.core.command_words import setting
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.plan import Plan
from lmctl.train.prepare import Prepared, prepare
from lmctl.train.trainer import Trainer

STEPS = 6
ENCODER = ("mix=mlm_nsp", "model=bert_tiny", "model.hidden=32", "model.feed_forward=64", "model.attention=tiled")
STILL = (*ENCODER, "model.dropout=0", "model.attention_dropout=0")
PLAIN = (*STILL, "optim=sgd", "optim.lr=0.1", "clip_norm=null")
LEARNING = (*STILL, "optim.lr=3e-3", "budget.steps=30")
DECODER = ("mix=clm", "model=llama_tiny", "model.hidden=32", "model.feed_forward=64", "tokenizer=wordpiece")
SHAPE = ("tokenizer.vocab_size=300", "batch.size=8", "batch.seq_len=64", "eval.rows=32", f"budget.steps={STEPS}")


class SmallRuns:
    """Plans of small runs below a temporary folder, and what they train."""

    def __init__(self, folder: Path, on_cpu: bool) -> None:
        self.folder, self.on_cpu = folder, on_cpu
        self.text = folder / "made-up.txt"
        self.text.write_text(made_up_text(), encoding="utf-8")
        self.processes = Processes(on_cpu)

    def words(self, *words: str) -> list[str]:
        """The overrides of a small run."""
        runner = "cpu" if self.on_cpu else "gpu"
        places = (setting("data.path", str(self.text)), setting("cache_dir", str(self.folder / "cache")))
        return [*SHAPE, *words, "data=text", f"runner={runner}", *places]

    def plan(self, *words: str) -> Plan:
        run = ("name=doctor", setting("run_dir", str(self.folder / "run")))
        return Plan.from_config(Composer("train").task([*self.words(*words), *run]))

    @cached_property
    def encoder(self) -> Plan:
        """A BERT on masked words and next sentences, with dropout."""
        return self.plan(*ENCODER)

    @cached_property
    def plain(self) -> Plan:
        """The same without dropout, whose masks differ from worker to worker and from pass to pass, and by SGD, whose
        steps grow with the gradients: Adam and clipping would hide a wrong factor."""
        return self.plan(*PLAIN)

    @cached_property
    def learning(self) -> Plan:
        """The same without dropout, for long enough to learn which words there are."""
        return self.plan(*LEARNING)

    @cached_property
    def decoder(self) -> Plan:
        """A Llama on packed documents."""
        return self.plan(*DECODER)

    @cached_property
    def texts(self) -> Prepared:
        """Tokenizer and tokens, which all plans share."""
        return prepare(self.encoder.tokenizer, self.encoder.mix, self.encoder.cache_dir, lambda line: None)

    def trainer(self, plan: Plan, worker: Processes | None = None) -> Trainer:
        return Trainer(plan, self.texts, worker or self.processes)

    def trained(self, plan: Plan) -> Tensor:
        """All weights at the end of the plan, float32 [N]: of the first worker, if it has several."""

        def work(worker: Processes) -> Tensor:
            trainer = self.trainer(plan, worker)
            for _ in trainer.steps():
                pass
            return weights_of(trainer)

        return as_workers(plan.simulated_workers, self.processes, work)


def weights_of(trainer: Trainer) -> Tensor:
    """All parameters of its network as one vector."""
    return torch.cat([parameter.detach().float().flatten() for parameter in trainer.network.parameters()])


def distance(one: Tensor, other: Tensor) -> float:
    """The norm of their difference, as a share of their norm."""
    return float((one - other).norm() / one.norm())


def made_up_text() -> str:
    """Documents of sentences of words that exist nowhere, the same each time; each document has favourite words, so
    that there is something to learn."""
    draw = random.Random(1)
    syllables = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(400)]

    def sentence(favourites: list[str]) -> str:
        return " ".join(draw.choices(favourites, k=draw.randint(4, 12))).capitalize() + "."

    def document(favourites: list[str]) -> str:
        return "\n".join(sentence(favourites) for _ in range(draw.randint(3, 8)))

    return "\n\n".join(document(draw.sample(words, 30)) for _ in range(120)) + "\n"


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Weights and optimiser states by name."""
    return {"weights": trainer.learner.state_dict(), "optimiser": trainer.step.optimizer.state_dict()}
