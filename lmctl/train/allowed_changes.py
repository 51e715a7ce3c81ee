"""What of a checkpoint is loaded when its run goes on with other settings (`resume.allow`).

Weights and counters always are. What belongs to a setting that changed starts anew where it cannot mean the same, and
that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lmctl.train.run_identity import Change
from lmctl.train.trainer import Trainer

OTHER_TEXT = ("data", "mix", "tokenizer", "batch.seq_len")
"""After a change of these, validation figures before and after cannot be compared."""

KEPT = ("progress", "average", "outer")
"""Parts that go on whatever changed: counters and weights, of which a run without an average takes the newest, and a
run that begins to have one makes its first; and an outer momentum, where there is one."""
PARTS = {
    "optimizer": "optimiser",
    "scaler": "loss scale",
    "balance": "learnt balance of the tasks",
    "teaching": "distillation losses",
}


@dataclass
class Adapted:
    """The arguments of `Trainer.load`, and what is to be said about them."""

    state: dict[str, Any]
    own: dict[str, Any] | None
    others: dict[str, Tensor] | None
    said: list[str]


def adapted(
    trainer: Trainer,
    state: dict[str, Any],
    own: dict[str, Any] | None,
    others: dict[str, Tensor] | None,
    changes: Sequence[Change],
) -> Adapted:
    """The states in a checkpoint that the trainer can load after the `changes`; unchanged if there are none. ValueError
    if it cannot go on at all."""
    found = Adapted(dict(state), own, others, [])
    if not changes:
        return found
    keys, names = {change.key for change in changes}, {name for change in changes for name in change.names}
    first = {change.name: change.what for change in reversed(changes)}
    found.said.append(f"allowed by resume.allow: {'; '.join(reversed(first.values()))}")
    for part, fresh in trainer.state_dict().items():
        other_rule = part == "optimizer" and "optim._target_" in keys
        if part not in KEPT and (other_rule or _form(fresh) != _form(state[part])):
            found.state[part] = fresh
            found.said.append(f"the state of the {PARTS[part]} starts anew")
    if found.state["optimizer"] is state["optimizer"] and "optim" in names:
        found.state["optimizer"] = _with_options(state["optimizer"], trainer.state_dict()["optimizer"])
    if own is not None and names & {"compression", "runner"}:
        found.own = own | {"exchange": None, "replica": None}
        found.said.append("what the workers had not sent yet is dropped")
    if names & {"batch", "data", "mix", "tokenizer"}:  # rows that go on from each other no longer do
        found.own = None if found.own is None else found.own | {"carried": None}
        found.others = None
    found.state["progress"] = _progress(trainer, state["progress"], changes, names)
    return found


def _form(state: dict[str, Any]) -> Any:
    """What two states of a part must have in common for one to be loaded as the other."""
    groups = state.get("inner", state).get("param_groups")
    if groups is not None:
        return set(state), [len(group["params"]) for group in groups]
    return {name: value.shape if isinstance(value, Tensor) else None for name, value in state.items()}


def _with_options(saved: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state with the options (betas, decay, ...) of a fresh one."""
    if "inner" in saved:
        return saved | {"inner": _with_options(saved["inner"], fresh["inner"])}
    pairs = zip(saved["param_groups"], fresh["param_groups"], strict=True)
    return saved | {"param_groups": [{**new, "params": old["params"]} for old, new in pairs]}


def _progress(trainer: Trainer, progress: dict[str, Any], changes: Sequence[Change], names: set[str]) -> dict[str, Any]:
    """The counters of the run, with a note of what was changed."""
    note = {"step": progress["step"], "changed": {change.key: change.what for change in changes}}
    found = progress | {"resumed": [*progress.get("resumed", []), note]}
    position = progress["position"]
    if position.get("blocks") and names & {"data", "mix", "tokenizer"}:
        raise ValueError("a streamed task goes on in the middle of its data, which must be the same")
    tasks = trainer.plan.mix.tasks
    kept = {part: {task: n for task, n in position.get(part, {}).items() if task in tasks} for part in ("rows", "owed")}
    found["position"] = position | kept
    if not names.isdisjoint(OTHER_TEXT):
        found |= {"best": None, "stale": 0, "valid": {}}
    return found
