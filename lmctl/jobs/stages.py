"""Stages: one command that trains several models in sequence, each from the result of an earlier stage.

A stage is `lmctl train` in a process and a directory of its own, with the overrides of the command line and, with lower
precedence, the stage's own settings. The same command resumes: finished stages are skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmctl.config.audit import overrides_of_file, refuse_recorded
from lmctl.config.overrides import Override, Overrides
from lmctl.core import child_process
from lmctl.core.command_words import command, setting
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.files import write_json
from lmctl.core.paths import Paths, is_folder_name
from lmctl.core.run_summary import RunSummary
from lmctl.core.suggest import did_you_mean
from lmctl.jobs.job import Job, exit_code_of, finished, forwarding_signals, run_alone
from lmctl.jobs.sweep_table import print_table

OWN = ("name", "run_dir", "resume", "stage", "stages")
"""Keys of the whole sequence, not of a stage."""
PREFIX = "stages."
"""`stages.NAME.key=value` on the command line is `key=value` for one stage."""
STARTS = ("init_from", "teacher")
"""Keys that may refer to an earlier stage."""


class StageFailed(LmctlError):
    """A stage did not complete; it has printed the reason."""

    def __init__(self, job: Job, again: str) -> None:
        super().__init__(f"stage {job.name} did not complete: {job.error}", f"go on with: {again}")
        self.code = exit_code_of(job)


def refuse_foreign_words(stages: Mapping[str, Any], known: Collection[str]) -> None:
    """ConfigError if a stage has a setting that only a command line may have. `known`: the verb's keys and groups."""
    for name, words in stages.items():
        refuse_recorded(f"stages.{name}", overrides_of_file(f"stages.{name}", words), known)


def plan_stages(stages: Mapping[str, Any], typed: Overrides, special: Overrides, folder: Path) -> list[Job]:
    """The stages as jobs. `typed` are overrides for all of them, `special` those for one; both take precedence over the
    config. ConfigError if a stage is not a list of settings, or starts from a later one."""
    for override in special:
        name = override.key.removeprefix(PREFIX).partition(".")[0]
        if name not in stages:
            raise ConfigError(
                f"{override}: there is no stage {name!r}{did_you_mean(name, stages)}",
                f"stages: {', '.join(stages) or 'none, which recipe=... may give'}",
            )
    jobs: list[Job] = []
    for name, words in stages.items():
        if not is_folder_name(str(name)):
            raise ConfigError(
                f"stages: {name!r:.80} is no name of a stage, which is that of its folder below {folder}",
                "letters, digits, - and _, such as pretrain",
            )
        own, chosen = overrides_of_file(f"stages.{name}", words), dict[str, Override]()
        for override in (*own, *typed, *_of_stage(name, special)):
            if override.key not in OWN:
                chosen.pop(override.key, None)
                chosen[override.key] = override
        for key in STARTS:
            if key in chosen:
                chosen[key] = _with_directory(chosen[key], name, jobs)
        jobs.append(Job(name, [*map(str, chosen.values()), setting("stage", name)], str(folder / name)))
    return jobs


def is_for_a_stage(override: Override) -> bool:
    """Whether it is `stages.NAME.key=value`."""
    return override.key.startswith(PREFIX) and not override.sign


def _of_stage(name: str, special: Overrides) -> Overrides:
    """`stages.NAME.key=value` as `key=value`."""
    own = f"{PREFIX}{name}."
    return Overrides.typed(str(one).removeprefix(own) for one in special if one.key.startswith(own))


def _with_directory(override: Override, name: str, before: Sequence[Job]) -> Override:
    """`init_from=` or `teacher=` with the name of an earlier stage replaced by its directory."""
    key, value = override.key, override.text
    found = next((job.run_dir for job in before if job.name == value), None)
    if found is None and value != "null" and not Path(value).exists() and "/" not in value:
        earlier = ", ".join(job.name for job in before) or "none"
        raise ConfigError(
            f"stages.{name}: {key}={value} is neither an earlier stage nor a model", f"earlier stages: {earlier}"
        )
    return override if found is None else Override.setting(key, found)


def run_stages(jobs: Sequence[Job], flags: Sequence[str], words: Overrides, folder: Path) -> None:
    """Run the stages in sequence; StageFailed at the first that does not complete. `flags` are passed to each, `words`
    are the typed overrides, which `resume=auto` repeats."""
    before = recorded(folder)
    for job in jobs:
        job.adopt(before.get("stages", {}).get(job.name))
    again = command("lmctl train resume=auto", run_dir=folder)
    running: list[Job] = []
    with forwarding_signals(running) as stops:
        for place, job in enumerate(jobs, start=1):
            label = f"[{place}/{len(jobs)}] stage {job.name}"
            if finished(job):
                print(f"{label}: already completed", flush=True)
                continue
            print(f"{label}: {job.run_dir}", flush=True)
            run_alone(job, _command(job, flags), running, stops)
            _record(jobs, words, folder)
            if job.status != "completed":
                raise StageFailed(job, again)
    print_table(jobs)


def recorded(folder: Path) -> dict[str, Any]:
    """The record of an earlier run of these stages; {} if there is none in `folder`."""
    found = RunSummary.of(Paths(folder)).written
    stages, words = found.get("stages"), found.get("words")
    by_name = isinstance(stages, dict) and all(isinstance(row, dict) for row in stages.values())
    listed = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return dict(found) if by_name and listed else {}


def recorded_overrides(folder: Path, known: Collection[str]) -> tuple[Overrides, Overrides] | None:
    """The overrides that the record of an earlier run of stages says to repeat, those for one stage apart; None if
    there is no record in `folder`. ConfigError if one of them is for the command line only."""
    if not (found := recorded(folder)):
        return None
    where = str(Paths(folder).summary)
    special, typed = overrides_of_file(f"{where}: words", found.get("words")).split(is_for_a_stage)
    inner = Overrides.typed(str(one).removeprefix(PREFIX).partition(".")[2] for one in special)
    refuse_recorded(where, typed + inner, known)
    return special, typed


def verb_of(job: Job) -> str:
    """The verb of a stage: `distill` if it has a teacher."""
    return "distill" if "teacher" in Overrides.typed(job.overrides) else "train"


def _command(job: Job, flags: Sequence[str]) -> list[str]:
    own = [setting("name", job.name), setting("run_dir", job.run_dir), "resume=auto"]
    return child_process.command(verb_of(job), *flags, *job.overrides, *own)


def _record(jobs: Sequence[Job], words: Overrides, folder: Path) -> None:
    """Write the summary of all stages as one run: that of the last stage that ran, and the outcome of each."""
    ran = [job for job in jobs if job.code is not None or job.status == "completed"]
    whole = dict(ran[-1].summary.written) if ran else {}
    whole["status"] = "completed" if all(job.status == "completed" for job in jobs) else jobs[len(ran) - 1].status
    _, lasting = words.without("name", "run_dir", "cache_dir", "resume", "trusted").split(Override.is_hydras)
    kept = lasting.render()
    write_json(Paths(folder).summary, whole | {"words": kept, "stages": {job.name: job.record() for job in jobs}})
