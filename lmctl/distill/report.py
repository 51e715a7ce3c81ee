"""Distillation report: closed part of the gap between student and teacher, and savings in latency and size.

gap closed = (distilled - alone) / (teacher - alone), for each validation metric; `alone` is the control, the same
student trained on the same rows without a teacher.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng
from lmctl.core.paths import Paths
from lmctl.distill.base import TeacherLogits
from lmctl.distill.teacher import TeacherEnsemble, teacher_of
from lmctl.model.pretrained import Pretrained
from lmctl.objective.base import Examples
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.precision.base import Precision
from lmctl.precision.fp32 import Fp32
from lmctl.train.build_parts import examples_of, heads_of
from lmctl.train.learner import Learner
from lmctl.train.prepare import Prepared
from lmctl.train.validation import Validation
from lmctl.train.weight_memory import weight_bytes

SECONDS = 2.0
"""Time limit of one latency measurement, in seconds, after a few passes."""
PASSES = 3


class EnsembleNetwork(nn.Module):
    """Ensemble of the teachers of a run as one network: the mean of their logits."""

    def __init__(self, live: TeacherEnsemble) -> None:
        super().__init__()
        self.live = live
        self.networks = nn.ModuleList(one.network for one in live.teachers)

    @property
    def complete(self) -> bool:
        """Whether it has logits for all of the student's vocabulary."""
        return all((one.shared.to_teacher >= 0).all() for one in self.live.teachers)

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        states = [one.network.encode(one.translated(inputs), read) for one in self.live.teachers]
        self.widths = [state.shape[-1] for state in states]
        return torch.cat(states, dim=-1)

    def head_parameters(self, name: str) -> list[nn.Parameter]:
        return [parameter for one in self.live.teachers for parameter in one.network.head_parameters(name)]

    def head(self, name: str, hidden: Tensor) -> Tensor:
        parts = zip(self.live.teachers, hidden.split(self.widths, dim=-1), strict=True)
        said: list[TeacherLogits] = [one.answers(name, part) for one, part in parts]
        return torch.stack([answers.logits for answers in said]).mean(dim=0)


def measure_gap(
    plan: Plan, prepared: Prepared, run: Paths, summary: dict[str, Any], control: dict[str, Any] | None
) -> dict[str, Any]:
    """Metrics of teacher, control and gap for summary.json, for a finished student in `run` with `summary`; `control`
    is the summary of the student trained without a teacher."""
    processes = Processes(plan.runner.on_cpu())
    live = teacher_of(plan, prepared, processes.device)
    ensemble = EnsembleNetwork(live)
    student = Pretrained(str(run.root)).load(prepared.vocabulary, heads_of(plan, prepared)).to(processes.device)
    objectives = {name: task.objective for name, task in plan.mix.tasks.items()}
    family, micro = plan.model.family, plan.batch.micro or plan.batch.rows
    valid = examples_of(plan.mix, family, plan.batch, prepared, "valid", augmented=False)
    validation = Validation(valid, objectives, plan.eval.rows, micro, processes)

    def learner(network: nn.Module, precision: Precision) -> Learner:
        return Learner(network, objectives, precision, processes.device).eval()

    both = [learner(ensemble, live.precision), learner(student, Fp32())]
    theirs, ours = _latencies(plan, valid, both)
    seen = validation.measured(both[0]) if ensemble.complete else None
    found: dict[str, Any] = {
        "teacher": {
            "path": plan.teacher[0] if len(plan.teacher) == 1 else list(plan.teacher),
            "parameters": sum(p.numel() for p in ensemble.parameters()),
            "model_bytes": weight_bytes(ensemble),
            "valid": seen.figures if seen else {},
            "ms_per_row": theirs,
        },
        "ms_per_row": ours,
    }
    if control is not None:
        alone, taught = control["valid"], summary["valid"]
        found["control"] = {"run_dir": control["run_dir"], "valid": alone}
        found["gap_closed"] = (
            {}
            if seen is None
            else {
                name: closed(seen.about[name].higher_is_better, taught[name], alone[name], value)
                for name, value in seen.figures.items()
                if name in alone
            }
        )
    return found


def closed(higher_is_better: bool, distilled: float, alone: float, teacher: float) -> float | None:
    """The closed share of the gap in a metric; None if the teacher is no better than the student alone."""
    sign = 1 if higher_is_better else -1
    gap = sign * (teacher - alone)
    return sign * (distilled - alone) / gap if gap > 1e-6 else None


def _latencies(plan: Plan, valid: Mapping[str, Examples], learners: list[Learner]) -> list[dict[str, float]]:
    """Latency of each learner in milliseconds per row of the first task's validation rows, heads included, for one row
    and for a batch: the minimum of several passes, because other load only adds time. The learners are measured in
    turns."""
    task, examples = next(iter(valid.items()))
    found: list[dict[str, float]] = [{} for _ in learners]
    for size in sorted({1, plan.batch.rows}):
        times: list[list[float]] = [[] for _ in learners]
        start, number = time.monotonic(), 0
        while number <= PASSES or time.monotonic() - start < SECONDS:
            rows = np.sort((np.arange(size) + number * size) % len(examples))
            batch = _fresh(examples.collate(rows, np.zeros_like(rows), CounterRng(0, f"{task}/valid")))
            for learner, taken in zip(learners, times, strict=True):
                taken.append(_milliseconds(learner, batch.to(learner.device)) / size)
            number += 1
        for latencies, taken in zip(found, times, strict=True):
            latencies[str(size)] = round(min(taken[1:]), 3)  # the first pass is a warm-up
    return found


def _fresh(batch: Batch) -> Batch:
    """The batch with no carried recurrent state."""
    return replace(batch, inputs={n: value for n, value in batch.inputs.items() if n not in ("track", "fresh")})


def _milliseconds(learner: Learner, batch: Batch) -> float:
    began = _now(learner.device)
    with torch.no_grad():
        learner.metrics(batch)
    return 1000 * (_now(learner.device) - began)


def _now(device: torch.device) -> float:
    """Time in seconds, after a synchronisation of `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The report as lines for people."""
    teacher, ours = summary["teacher"], summary["parameters"]["total"]
    smaller = 1 - ours / teacher["parameters"]
    fast = [f"{teacher['ms_per_row'][n] / ms:.1f} times (batch {n})" for n, ms in summary["ms_per_row"].items() if ms]
    sizes = f"teacher: {teacher['parameters']:,} weights, {teacher['model_bytes'] / 1e6:.1f} MB"
    lines = [
        f"student: {ours:,} weights, {summary['model_bytes'] / 1e6:.1f} MB; {sizes}",
        f"  {abs(smaller):.0%} {'smaller' if smaller >= 0 else 'larger'}, and {' and '.join(fast)} as fast",
    ]
    names = [name for name in summary["valid"] if name in teacher["valid"] and name != "loss"]
    if not names:
        return [*lines, "  the teacher has no answer for some of the student's pieces, so it was not measured"]
    alone, gaps = summary.get("control", {}).get("valid", {}), summary.get("gap_closed", {})
    width = max(map(len, names)) + 2
    lines.append(f"  {'':<{width}}{'alone':>10}{'distilled':>11}{'teacher':>10}{'gap closed':>12}")
    for name in names:
        gap = gaps.get(name)
        cells = (alone.get(name), summary["valid"][name], teacher["valid"][name])
        shown = ["" if value is None else f"{value:.4f}" for value in cells]
        share = "" if name not in gaps else ("no gap" if gap is None else f"{gap:.0%}")
        lines.append(f"  {name:<{width}}{shown[0]:>10}{shown[1]:>11}{shown[2]:>10}{share:>12}")
    return lines
