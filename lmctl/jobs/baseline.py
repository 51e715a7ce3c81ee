"""The baseline of a distilled student: the same student trained without a teacher.

It is `lmctl train --from` the student's own config, with `distill=none`, in a process and a directory of its own. The
directory is named after a hash of everything that decides its result, so that the runs of a sweep share it. (In the
user interface it is the control: `distill.control`, `control-...`.)
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from lmctl.config.groups import TrainConfig
from lmctl.config.saved import resolved
from lmctl.config.table import without
from lmctl.core import child_process, signals
from lmctl.core.command_words import command, literal, setting
from lmctl.core.errors import LmctlError, Stopped
from lmctl.core.paths import Paths
from lmctl.jobs.job import Job, exit_code_of, forwarding_signals, run_alone
from lmctl.train.recorded_choices import with_choices_of

OWN = without(TrainConfig, "control")
"""Keys that do not affect the result of a student without a teacher."""


class BaselineFailed(LmctlError):
    """The baseline did not complete; it has printed the reason."""

    def __init__(self, job: Job, again: str) -> None:
        super().__init__(f"the control did not complete: {job.error}", f"go on with: {again}")
        self.code = exit_code_of(job)


def train_baseline(cfg: DictConfig) -> Paths:
    """The directory of the finished baseline of the student in `cfg`; it is trained if it does not exist.
    BaselineFailed, or Stopped by a signal."""
    run = Paths(Path(cfg.run_dir))
    again = command("lmctl distill resume=auto", run_dir=run.root)
    folder = run.root.parent / f"control-{_hash(cfg, run)}"
    with _lock(folder, again):
        trusted = f"trusted=[{','.join(map(literal, cfg.trusted))}]"
        # A student that is initialised from its teacher's layers still needs the teacher.
        alone = [] if cfg.student.from_teacher is not None else ["teacher=null"]
        job = Job("control", ["distill=none", *alone, *([trusted] if cfg.trusted else [])], str(folder))
        if job.summary.is_complete:
            print(f"control: {folder} is there already", flush=True)
            return Paths(folder)
        print(f"control: the same student without a teacher, in {folder}", flush=True)
        running: list[Job] = []
        with forwarding_signals(running) as stops:
            run_alone(job, _command(job, run), running, stops)
        if job.status != "completed":
            raise BaselineFailed(job, again)
    return Paths(folder)


def _lock(folder: Path, again: str) -> AbstractContextManager[Any]:
    """A file lock: another run of a sweep may be training the same baseline, and is waited for."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with signals.saving():  # the student is saved: on a signal, print how to continue
        while True:
            held = None
            with suppress(Timeout):
                held = lock.acquire(timeout=1)
            if reason := signals.requested():
                raise Stopped(f"{reason} while the control was waited for", f"go on with: {again}")
            if held is not None:
                return held


def _command(job: Job, run: Paths) -> list[str]:
    """The command that trains it. The student's config has every option written out, so no --config-dir is needed."""
    own = [setting("run_dir", job.run_dir), setting("name", Path(job.run_dir).name), "resume=auto"]
    return child_process.command("train", "--from", str(run.config), *job.overrides, *own)


def _hash(cfg: DictConfig, run: Paths) -> str:
    """Hash (eight hex digits) of the baseline: its config, and the contents of tokenizer and text."""
    config = resolved(with_choices_of(run, cfg))
    prints = json.loads(run.environment.read_text(encoding="utf-8"))["fingerprints"]
    kept = {key: value for key, value in config.items() if key not in OWN}
    begins = cfg.student.from_teacher is not None
    content = [kept, {name: value for name, value in prints.items() if name != "teacher" or begins}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
