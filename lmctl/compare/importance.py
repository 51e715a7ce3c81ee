"""How much each setting of a search mattered, by Optuna, from the search's own record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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


def importance_lines(folder: Path) -> Iterator[str]:
    """A line about the importance of the settings of the search in `folder`; none for what is no search, or too few
    trials. Watanabe et al. 2023 (PED-ANOVA): the share of what separates the best trials from the others."""
    if not (folder / JOURNAL).is_file() or not is_installed("optuna"):
        return
    try:
        shares, count = _shares(study_in(folder))
    except Exception as error:  # a record that Optuna does not read must not end a comparison
        yield f"importance of settings: {folder / JOURNAL} cannot be used ({type(error).__name__})"
        return
    if shares:
        words = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        yield f"importance of settings (PED-ANOVA, {count} completed trials): {words}"


def _shares(study: Any) -> tuple[dict[str, float], int]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    completed = study.get_trials(states=(TrialState.COMPLETE,))
    searched = {name for trial in completed for name in trial.params}
    if len(completed) < LEAST or len(searched) < 2:
        return {}, len(completed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())), len(completed)
