"""Summary of a run: summary.json, and the last lines on the terminal."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from lmctl.config.schema import Budget
from lmctl.core.command_words import command
from lmctl.core.paths import Paths
from lmctl.core.progress import duration
from lmctl.kernels import kernel
from lmctl.plan import Plan
from lmctl.train import final_figures, loss_plot
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import bytes_per_parameter, weight_bytes


def summary_of(trainer: Trainer, status: str, baseline: dict[str, float]) -> dict[str, Any]:
    """The contents of summary.json; `status`: completed, stopped or failed. Speed and memory are this process's."""
    state, parameters = trainer.state, list(trainer.network.parameters())
    training = state.seconds - state.aside_seconds
    sizes = bytes_per_parameter(trainer.learner, trainer.network, trainer.step.optimizer)
    return {
        "status": status,
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 2),
        "tokens_per_second": round(state.tokens / state.seconds, 1) if state.seconds else 0.0,
        "training_tokens_per_second": round(state.tokens / training, 1) if training > 0 else 0.0,
        "tokens_per_cpu_second": round(state.tokens / state.cpu_seconds, 1) if state.cpu_seconds else 0.0,
        "task_tokens": state.task_tokens,
        "train": state.train,
        "valid": state.valid,
        "baseline": baseline,
        "peak_memory_bytes": peak_memory(trainer.processes.device),
        "bytes_sent": state.bytes_sent,
        "bytes_dense": state.bytes_dense,
        "skipped_steps": state.skipped,
        "cost_factor": round(state.passes / max(1, state.micro_batches), 3),
        "parameters": {
            "total": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        },
        "model_bytes": weight_bytes(trainer.network),
        "best": state.best,
        "precision": state.precision | {"bytes_per_parameter": sizes},
        **({"resumed": state.resumed} if state.resumed else {}),
        **_kernels(trainer),
        **_compression(trainer),
        **({"rollbacks": state.rollbacks} if state.rollbacks else {}),
        **({"micro_batch_rows": fitting} if (fitting := trainer.micro.fitting) else {}),
    }


def _kernels(trainer: Trainer) -> dict[str, str]:
    """Which kernels a CPU computed with; empty on a GPU, which has torch's own."""
    return {"kernels": kernel.described()} if trainer.processes.device.type == "cpu" else {}


def _compression(trainer: Trainer) -> dict[str, Any]:
    """Compression ratio and bytes of the whole run; empty without compression."""
    words, state = trainer.strategy.describe(), trainer.state
    if not words:
        return {}
    ratio = {"compression_ratio": round(state.bytes_dense / max(1, state.bytes_sent), 2)}
    return {"compression": words, **trainer.strategy.figures(), **ratio}


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the GPU if there is one, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def closing_words(summary: dict[str, Any], paths: Paths, plan: Plan) -> list[str]:
    """Lines for people at the end: metrics against baselines, paths, next commands."""
    budget = plan.budget
    size, speed = summary["parameters"]["total"], summary["training_tokens_per_second"]
    lines = [
        f"done: {summary['steps']:,} steps in {duration(summary['seconds'])}, {speed:,.0f} tokens/s, {size:,} weights"
    ]
    if (step := summary["exported_step"]) != summary["steps"]:
        lines.append(f"model: the best one, of step {step:,}")
    lines += final_figures.lines(summary)
    first, *others = _uses(paths, plan)
    sizes = summary["precision"]["bytes_per_parameter"]
    parts = ", ".join(f"{sizes[part]:.1f} {part}" for part in ("weights", "gradients", "optimiser"))
    return [
        *lines,
        f"  memory: {sizes['total']:.1f} bytes per weight ({parts}), activations aside",
        f"  run: {paths.root}   model: {paths.model}   {loss_plot.where(paths)}",
        f"next: {first}",
        *(f"      {use}" for use in others),
        f"      {command(f'lmctl {plan.verb} resume=auto', run_dir=paths.root)} {_twice(budget)}",
    ]


def _uses(paths: Paths, plan: Plan) -> list[str]:
    """Next commands for such a model."""
    tasks = plan.mix.tasks
    reads = {task.objective.reads for task in tasks.values()}
    labelling = [name for name, task in tasks.items() if task.objective.reads == "labelled"]
    uses = []
    if "parallel" in reads:
        uses.append(f"{command('lmctl translate', model_path=paths.root)} < lines.txt")
    elif "documents" in reads:
        prompt = "... [MASK] ..." if plan.model.family == "encoder" else "..."
        uses.append(f'{command("lmctl generate", model_path=paths.root)} prompt="{prompt}"')
    for name in labelling[:1]:
        chosen = name if len(labelling) > 1 else None
        uses.append(f"{command('lmctl predict', model_path=paths.root, task=chosen)} file=FILE")
    return uses


def _twice(budget: Budget) -> str:
    """Overrides that double every limit of the budget."""
    limits = {"steps": budget.most_steps, "tokens": budget.tokens, "epochs": budget.epochs, "minutes": budget.minutes}
    return " ".join(f"budget.{name}={2 * value}" for name, value in limits.items() if value)
