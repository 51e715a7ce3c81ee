"""How much each setting of a search mattered, by Optuna, from the search's own record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmctl.core.extras import is_installed

JOURNAL = "search.jsonl"
"""Optuna's record of a search, in its folder: one JSON object per line."""
LEAST = 8
"""Completed trials below which importance says nothing."""


def study_in(folder: Path, sampler: Any = None, pruner: Any = None, create: str | None = None) -> Any:
    """The study recorded in `folder`. `create`: its direction, minimize or maximize, if there is none yet."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = str(folder / JOURNAL)
    storage = JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))
    common: dict[str, Any] = {"study_name": "search", "storage": storage, "sampler": sampler, "pruner": pruner}
    if create is None:
        return optuna.load_study(**common)
    return optuna.create_study(**common, direction=create, load_if_exists=True)


@dataclass(frozen=True)
class Importance:
    """How much each setting of a search mattered, by PED-ANOVA (Watanabe et al. 2023): its share of what separates the
    best trials from the others."""

    shares: Mapping[str, float]
    trials: int
    """Completed ones."""


def importance_in(folder: Path) -> Importance | None:
    """The importance of the settings of the search in `folder`; None for what is no search, or has too few trials.
    ValueError for a record that Optuna does not read."""
    if not (folder / JOURNAL).is_file() or not is_installed("optuna"):
        return None
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    try:
        study = study_in(folder)
        completed = study.get_trials(states=(TrialState.COMPLETE,))
        if len(completed) < LEAST or len({name for trial in completed for name in trial.params}) < 2:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Importance(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()), len(completed))
    except Exception as error:  # Optuna replays the record, and raises what a damaged one leads it to
        raise ValueError(f"{folder / JOURNAL} cannot be used ({type(error).__name__})") from error


def importance_lines(folder: Path) -> Iterator[str]:
    """The same as a line for people, or why there is none: no record may end a comparison."""
    try:
        found = importance_in(folder)
    except ValueError as error:
        yield f"importance of settings: {error}"
        return
    if found is not None:
        words = ", ".join(f"{name} {share:.0%}" for name, share in found.shares.items())
        yield f"importance of settings (PED-ANOVA, {found.trials} completed trials): {words}"
