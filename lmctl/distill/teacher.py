"""Teacher models in memory: inference mode, own precision, one model or an ensemble.

A teacher is not part of the student: not of its parameters, checkpoints, gradient exchange or export. Only logits at
the student's targets are computed: the trunk runs once per micro-batch, the heads per chunk of targets. The logits of
an ensemble are averaged, which gives the geometric mean of the distributions (Hinton et al. 2015, section 2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import Vocabulary
from lmctl.distill.activation_recorder import ActivationRecorder
from lmctl.distill.base import (
    Distiller,
    FeatureLoss,
    LogitLoss,
    ModelShape,
    States,
    Teacher,
    TeacherLogits,
    TeacherOutput,
)
from lmctl.distill.distillation import real_positions_by_stack
from lmctl.distill.shared_vocabulary import SharedPieces, match
from lmctl.model.network import LANGUAGE
from lmctl.model.pretrained import TeacherModel
from lmctl.objective.base import Objective, Prediction
from lmctl.parallel.strategy import Strategy
from lmctl.plan import Plan
from lmctl.precision.base import Precision
from lmctl.precision.fp32 import Fp32
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.tokenizer.vocabulary import vocabulary
from lmctl.train.build_parts import heads_of
from lmctl.train.prepare import Prepared


@dataclass(frozen=True)
class TeacherNetwork:
    """One loaded teacher with its vocabulary mapping."""

    network: Any
    shared: SharedPieces
    unknown: int
    """The id it reads for a token that it does not have."""

    def translated(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs in its own ids. A recurrent teacher starts every row anew, so it has no state to save."""
        inputs = {name: value for name, value in inputs.items() if name not in ("track", "fresh")}
        if not self.shared.same:
            for name in ("input_ids", "decoder_input_ids"):
                if name in inputs:
                    inputs[name] = self.shared.read(inputs[name], self.unknown)
        return inputs

    def answers(self, head: str, hidden: Tensor) -> TeacherLogits:
        logits = self.network.head(head, hidden).float()
        if head not in LANGUAGE or head == "pair":
            return TeacherLogits(logits)
        if self.shared.same:
            return TeacherLogits(logits[..., : len(self.shared.to_student)])
        places = self.shared.of_student
        logits = logits.index_select(-1, torch.from_numpy(self.shared.of_teacher).to(logits.device))
        if len(places) == len(self.shared.to_teacher):
            return TeacherLogits(logits)
        return TeacherLogits(logits, torch.from_numpy(places).to(logits.device).expand(len(logits), -1))


class TeacherEnsemble(Teacher):
    """One teacher or several, with a forward pass for every micro-batch."""

    def __init__(
        self,
        teachers: Sequence[TeacherNetwork],
        precision: Precision,
        device: torch.device,
        recorder: ActivationRecorder | None,
        fingerprints: dict[str, str],
    ) -> None:
        """`recorder`: of a single teacher, if a feature loss needs its hidden states."""
        self.teachers, self.precision, self.device = teachers, precision, device
        self.recorder, self.fingerprints = recorder, fingerprints

    @property
    def model_shape(self) -> ModelShape | None:
        return None if self.recorder is None else self.recorder.model_shape

    def outputs(self, batch: Batch, predictions: Mapping[str, Prediction]) -> EnsembleOutput:
        return self.read(batch, {term: (one.inputs, one.at) for term, one in predictions.items()})

    def read(self, batch: Batch, asked: Mapping[str, tuple[Mapping[str, Tensor], Tensor | None]]) -> EnsembleOutput:
        """Forward pass of the teachers. `asked`, by term: the encoded inputs, and the flattened positions of the
        targets (None: a summary of each row). Terms with the same inputs share one pass."""
        groups: dict[int, list[str]] = {}
        for term, (inputs, _) in asked.items():
            groups.setdefault(id(inputs), []).append(term)
        hidden: dict[str, list[Tensor]] = {term: [] for term in asked}
        states = None
        for terms in groups.values():
            inputs, places = asked[terms[0]][0], [asked[term][1] for term in terms]
            read = None if places[0] is None else torch.cat([at for at in places if at is not None])
            with self.computing(), nullcontext() if self.recorder is None else self.recorder.recording():
                found = [one.network.encode(one.translated(inputs), read) for one in self.teachers]
            if self.recorder is not None:
                states = self.recorder.pop(real_positions_by_stack(replace(batch, inputs=dict(inputs))))
            sizes = [len(found[0]) if at is None else len(at) for at in places]
            for parts in (one.split(sizes) for one in found):
                for term, part in zip(terms, parts, strict=True):
                    hidden[term].append(part)
        return EnsembleOutput(self, hidden, states)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Context of a teacher's forward pass: no gradients, and its own precision, independent of the student's."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), self.precision.products(self.device):
            yield


@dataclass(frozen=True)
class EnsembleOutput(TeacherOutput):
    """Teacher outputs of one micro-batch, from models in memory."""

    live: TeacherEnsemble
    hidden: Mapping[str, Sequence[Tensor]]
    """By term and teacher: hidden states [N, H] at the targets."""
    inner: States | None

    @property
    def states(self) -> States:
        assert self.inner is not None
        return self.inner

    def answers(self, term: str, head: str, rows: slice) -> TeacherLogits:
        with self.live.computing():
            said = [
                one.answers(head, hidden[rows])
                for one, hidden in zip(self.live.teachers, self.hidden[term], strict=True)
            ]
            if len(said) == 1:
                return said[0]
            return said[0]._replace(logits=torch.stack([answers.logits for answers in said]).mean(dim=0))


def target_positions(objective: Objective, batch: Batch) -> dict[str, Tensor | None]:
    """Flattened positions of the targets by term, in unperturbed rows; None: a summary of each row."""
    rows = objective.label_kind is not None
    return {term: None if rows else target.positions for term, target in batch.targets.items()}


def teacher_of(
    plan: Plan, prepared: Prepared, device: torch.device, strategy: Strategy | None = None
) -> TeacherEnsemble:
    """Load the teachers of `plan`; ConfigError if they cannot teach its tasks. `strategy`: of the workers that pass
    through them together."""
    rule, precision = plan.distill, plan.distill.teacher_precision or Fp32()
    if (reason := precision.refuse(device)) is not None:
        raise ConfigError(f"distill.teacher_precision: {reason}")
    answering = any(isinstance(term, LogitLoss) for term in rule.terms.values())
    teachers, prints = [], []
    for model in plan.teachers:
        known, shared = vocabularies(model, prepared)
        if answering:
            check_labels(plan, prepared, model)
        together = strategy if is_shared(plan, precision) else None
        with nullcontext() if together is None else together.building():
            network = model.load(known, heads_of(plan, prepared))
        _check_trained(model, network, answering)
        precision.convert(network, device)
        network.eval().requires_grad_(False)
        if together is None:
            network.to(device)
        else:
            together.share(network, precision)
        teachers.append(TeacherNetwork(network, shared, known.unk))
        prints.append(fingerprint(model))
    if len(teachers) > 1 and not all(one.shared.same for one in teachers):
        raise ConfigError(
            "distill: several teachers are averaged piece by piece, so all must have the student's vocabulary",
            f"teacher={plan.teacher[0]}",
        )
    recorder = recorder_for(plan.distill, teachers[0].network)
    return TeacherEnsemble(teachers, precision, device, recorder, {"teacher": json.dumps(prints)})


def is_shared(plan: Plan, precision: Precision) -> bool:
    """Whether a teacher may be in parts: its weights are ordinary ones, and all workers pass through it as often, which
    batches of several tasks would not."""
    return len(plan.mix.tasks) == 1 and precision.storage is None and precision.product not in ("int8", "fp8")


def needs_teacher(plan: Plan) -> bool:
    """Whether a distillation loss needs the teacher's outputs during training."""
    return any(isinstance(term, (LogitLoss, FeatureLoss)) for term in plan.distill.terms.values())


def vocabularies(model: TeacherModel, prepared: Prepared) -> tuple[Vocabulary, SharedPieces]:
    """The teacher's vocabulary, and its mapping to the student's."""
    tokenizer = Pretrained(model.init_from).obtain(iter(()))
    pieces = (tokenizer.get_vocab(), prepared.tokenizer.get_vocab())
    return vocabulary(tokenizer), match(*pieces, where=model.init_from, unknown=tokenizer.unk_token)


def recorder_for(rule: Distiller, network: Any) -> ActivationRecorder | None:
    """The recorder of hidden states and attention for feature losses; None if there are none."""
    losses = [term for term in rule.terms.values() if isinstance(term, FeatureLoss)]
    return ActivationRecorder(network, any(loss.attends for loss in losses)) if losses else None


def fingerprint(model: TeacherModel) -> str:
    """Hash of the weight files, 64 hex digits; of a hub model the commit."""
    return model.artifact.fingerprint()


def _check_trained(model: TeacherModel, network: Any, answering: bool) -> None:
    """ConfigError if the teacher's heads (`answering`) or trunk have weights that were not trained."""
    prefix = network.model.base_model_prefix + "."
    new = [name for name in network.untrained if answering or name.startswith(prefix)]
    if new:
        heads = sorted({name.rsplit(".", 1)[0] for name in new})
        raise ConfigError(
            f"teacher={model.init_from} was not trained for the tasks of this run: it has no {', '.join(heads[:3])}",
            "the mix of its own run; or, whatever its heads are for, distill=hidden",
        )


def check_labels(plan: Plan, prepared: Prepared, model: TeacherModel) -> None:
    """ConfigError unless teacher and data have the same classes in the same order, because logits are matched by
    index."""
    for name, task in plan.mix.tasks.items():
        if task.objective.label_kind not in ("class", "classes"):
            continue
        ours, theirs = list(prepared.corpora[name].train.label_names), model.artifact.labels(name)
        if theirs is not None and theirs != ours:
            raise ConfigError(
                f"mix.tasks.{name} has the labels {', '.join(ours[:8])}, and teacher={model.init_from} "
                f"{', '.join(theirs[:8])}",
                "the labels of the data the teacher was trained on, in the same order; or distill=hidden",
            )
