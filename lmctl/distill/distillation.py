"""Distillation losses of a micro-batch, against a teacher's outputs for the same rows.

The teacher reads exactly the inputs of the student's predictions. Losses on logits run with the student's heads, chunk
by chunk (`lmctl/train/losses.py`); losses on hidden states and attention are computed here, for all positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.batch import Batch, LabelKind
from lmctl.distill.activation_recorder import ActivationRecorder
from lmctl.distill.base import Distiller, FeatureLoss, LogitLoss, LossContext, States, Teacher, TeacherOutput
from lmctl.objective.base import Objective, Prediction
from lmctl.train.distill_losses import DistillLosses, NoDistillation, TargetLoss
from lmctl.train.losses import zero_loss
from lmctl.train.rows import real_positions

PREFIX = "distill_"
"""Prefix of the names of distillation losses in the metrics."""


class Distillation(NoDistillation):
    """The teacher, and the losses against its outputs."""

    def __init__(
        self,
        teacher: Teacher,
        rule: Distiller,
        objectives: Mapping[str, Objective],
        recorder: ActivationRecorder | None,
    ) -> None:
        """`recorder`: records the student's hidden states, if there is a feature loss."""
        super().__init__()
        self.teacher, self.rule, self.recorder = teacher, rule, recorder
        self.chunk_bytes = rule.chunk_bytes
        self.kinds: dict[str, LabelKind] = {name: o.label_kind or "class" for name, o in objectives.items()}
        self.logit_losses = {n: t for n, t in rule.terms.items() if isinstance(t, LogitLoss)}
        self.feature_losses = nn.ModuleDict()
        self.shown = []
        for name, term in rule.terms.items():
            if recorder is not None and isinstance(term, FeatureLoss):
                assert teacher.model_shape is not None
                self.feature_losses[name] = module = term.build(recorder.model_shape, teacher.model_shape)
                self.shown += [f"{name}: {line}" for line in module.shown]
        self._last: tuple[Any, TeacherOutput] | None = None
        self.register_load_state_dict_pre_hook(_with_older_names)

    def _label(self, name: str, term: str, batch: Batch) -> str:
        """Metric name of a distillation loss on the targets of `term`."""
        return f"{PREFIX}{name}" if len(batch.targets) == 1 else f"{PREFIX}{name}_{term}"

    def counts(self, batch: Batch) -> dict[str, int]:
        counts = batch.counts()
        answers = {self._label(name, term, batch): counts[term] for name in self.logit_losses for term in counts}
        return answers | {f"{PREFIX}{name}": batch.tokens for name in self.feature_losses}

    def recording(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.recorder is None else self.recorder.recording()

    def recorded(self, batch: Batch) -> States | None:
        return None if self.recorder is None else self.recorder.pop(real_positions_by_stack(batch))

    def losses(
        self, batch: Batch, predictions: Mapping[str, Prediction], states: States | None, progress: float
    ) -> DistillLosses:
        output = self._outputs(batch, predictions)
        context = LossContext(self.kinds[batch.task], progress)

        def on_chunk(loss: LogitLoss, term: str, head: str) -> TargetLoss:
            return lambda logits, rows: loss.loss(logits.float(), output.answers(term, head, rows), context)

        logits = {
            term: {
                self._label(name, term, batch): (loss.weight_at(progress), on_chunk(loss, term, prediction.head))
                for name, loss in self.logit_losses.items()
            }
            for term, prediction in predictions.items()
        }
        inner = {}
        for name, pupil in self.feature_losses.items():
            weight = self.rule.terms[name].weight_at(progress)
            inner[f"{PREFIX}{name}"] = weight, _feature_loss(pupil, states, output.states, weight)
        return DistillLosses(0.0 if batch.generated else self.rule.task_weight_at(progress), logits, inner)

    def _outputs(self, batch: Batch, predictions: Mapping[str, Prediction]) -> TeacherOutput:
        """Teacher outputs, computed once for all passes over the same inputs."""
        inputs = [prediction.inputs for prediction in predictions.values()]
        known = self._last
        if known is not None and len(known[0]) == len(inputs) and all(map(_same, known[0], inputs)):
            return known[1]
        self._last = None  # free the last outputs before computing new ones
        output = self.teacher.outputs(batch, predictions)
        self._last = inputs, output
        return output


def _same(one: object, other: object) -> bool:
    return one is other


def _feature_loss(pupil: nn.Module, ours: Any, theirs: Any, weight: float) -> Tensor:
    """A weighted feature loss, in float32 for any dtype of the states; at weight 0 without a backward pass."""
    with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
        apart: Tensor = pupil(ours, theirs)
    return apart if weight != 0 else apart + zero_loss(pupil.parameters())


def real_positions_by_stack(batch: Batch) -> dict[str, Tensor]:
    """bool [R, L] by stack of layers: True where not padding."""
    if "decoder_input_ids" not in batch.inputs:
        return {"layers": real_positions(batch)}
    ids, mask = batch.inputs["decoder_input_ids"], batch.inputs.get("decoder_attention_mask")
    target = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    return {"encoder": real_positions(batch), "decoder": target}


def _with_older_names(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Checkpoints of November 2026 and before call the feature losses `pupils`."""
    for name in [name for name in state if name.startswith(f"{prefix}pupils.")]:
        state[name.replace("pupils.", "feature_losses.", 1)] = state.pop(name)
