"""What follows a distilled student: the same student without a teacher, and how much of the gap between the two the
teacher closed.

The control is `lmctl train --from` the student's own config, with `distill=none`, in a process and a directory of its
own. The directory is named after all that decides what comes out, so that the runs of a sweep share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, cast

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lmctl.cli.jobs import Job
from lmctl.config.groups import TrainConfig
from lmctl.config.table import without
from lmctl.core import stop
from lmctl.core.errors import Exit, LmctlError, Stopped
from lmctl.core.places import Paths
from lmctl.core.stop import SIGNALS
from lmctl.core.words import command, literal, setting

OWN = without(TrainConfig, "control")
"""Keys that do not decide what becomes of a student without a teacher."""
POLL_SECONDS = 0.1


class ControlFailed(LmctlError):
    """The control did not complete; it has said why."""

    def __init__(self, job: Job, again: str) -> None:
        super().__init__(f"the control did not complete: {job.error}", f"go on with: {again}")
        self.code = Exit(job.code) if job.code in set(Exit) else Exit.FAILED


def conclude(cfg: DictConfig, flags: Sequence[str]) -> None:
    """Train the control, unless it is not wanted or is there already, and compare."""
    if cfg.teacher_cache == "build":  # nothing was trained
        return
    run = Paths(Path(cfg.run_dir))
    again = command("lmctl distill resume=auto", run_dir=run.root)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if int(os.environ.get("RANK", "0")) == 0 and "LMCTL_LAUNCHED" not in os.environ:
            print(f"control and comparison are for a single process: {again}", flush=True)
        return
    control = _control(cfg, run, flags, again) if cfg.distill.get("control") else None
    from lmctl.verbs.distill import compare

    compare(cfg, control)


def _control(cfg: DictConfig, run: Paths, flags: Sequence[str], again: str) -> Paths:
    """The directory of the finished control."""
    folder = run.root.parent / f"control-{_key(cfg, run)}"
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with stop.saving():  # the student is: a signal is told how to go on
        while True:
            try:
                lock.acquire(timeout=1)
                break
            except Timeout:  # another run of a sweep is training it
                if reason := stop.requested():
                    raise Stopped(f"{reason} while the control was waited for", f"go on with: {again}") from None
    with lock:
        trusted = f"trusted=[{','.join(map(literal, cfg.trusted))}]"
        # A student that begins with its teacher's layers needs the teacher for that.
        alone = [] if cfg.student.from_teacher is not None else ["teacher=null"]
        words = ["distill=none", *alone, *([trusted] if cfg.trusted else [])]
        job = Job("control", words, str(folder))
        if job.summary.get("status") == "completed":
            print(f"control: {folder} is there already", flush=True)
            return Paths(folder)
        print(f"control: the same student without a teacher, in {folder}", flush=True)
        _run(job, ["--from", str(run.config), *_without_from(flags)])
        if job.status != "completed":
            raise ControlFailed(job, again)
    return Paths(folder)


def _run(job: Job, flags: Sequence[str]) -> None:
    """Run the job, its words going to the terminal, and pass stop signals on to it."""
    own = [setting("run_dir", job.run_dir), setting("name", Path(job.run_dir).name), "resume=auto"]
    stops: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        job.send(number)

    handlers = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        job.start([sys.executable, "-m", "lmctl", "train", *flags, *job.overrides, *own], {}, live=True)
        for number in stops:  # it came before there was a process
            job.send(number)
        while not job.poll():
            time.sleep(POLL_SECONDS)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _key(cfg: DictConfig, run: Paths) -> str:
    """Eight hex digits of what the control is: its config, and the contents of tokenizer and text."""
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    prints = json.loads(run.environment.read_text(encoding="utf-8"))["fingerprints"]
    kept = {key: value for key, value in config.items() if key not in OWN}
    begins = cfg.student.from_teacher is not None
    content = [kept, {name: value for name, value in prints.items() if name != "teacher" or begins}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _without_from(flags: Sequence[str]) -> list[str]:
    """The flags of this command that the control needs as well."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [word for name, value in pairs if name == "--config-dir" for word in (name, value)]
