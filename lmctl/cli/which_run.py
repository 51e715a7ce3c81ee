"""Finding the run that a command line resumes: `resume=`, `name=` and `run_dir=`."""

from __future__ import annotations

import os
from pathlib import Path

from lmctl.config.compose import Composer
from lmctl.config.overrides import Override, Overrides
from lmctl.config.saved import recorded_config
from lmctl.core.command_words import setting
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of
from lmctl.core.paths import Paths

RECORDED_AS = {"resume.allow": "resume_allow"}
"""In a config `resume` is a word, so nothing can be below it."""


def going_on(words: list[str]) -> list[str]:
    """The command that goes on with a run, for `lmctl resume RUN key=value ...`. ConfigError if no run is named, or if
    there is none."""
    if words[:1] in (["-h"], ["--help"]):
        return ["train", "--help", "resume"]
    if not words or "=" in words[0] or words[0].startswith("-"):
        raise ConfigError("lmctl resume does not say which run", "lmctl resume RUN, such as lmctl resume runs/mine")
    folder, rest = path_of(words[0]), words[1:]
    if not folder.is_dir():
        raise ConfigError(f"there is no run in {words[0]}", "give the folder of a run, such as runs/mine")
    run = Paths(folder)
    taught = run.config.exists() and recorded_config(run).get("teacher") is not None
    return ["distill" if taught else "train", "resume=auto", setting("run_dir", str(folder)), *rest]


def as_recorded(override: Override) -> Override:
    """`resume.allow=data,optim` as `resume_allow=[data,optim]`. ConfigError for another key below `resume`."""
    if override.key in RECORDED_AS:
        return override.as_list_of(RECORDED_AS[override.key])
    if override.key.startswith("resume."):
        raise ConfigError(f"unknown key '{override.key}'; did you mean resume.allow?")
    return override


def asks_to_resume(overrides: Overrides, composer: Composer) -> bool:
    """Whether a run is to be resumed, if it exists."""
    return composer.verb.has_run_dir and overrides.text("resume") not in (None, "false")


def resumes(overrides: Overrides, composer: Composer) -> bool:
    """Whether an existing run is resumed, so that its own config is the base."""
    if not asks_to_resume(overrides, composer):
        return False
    folder = folder_of(overrides, composer)
    if folder is None and overrides.text("resume") != "auto":
        folder = folder_of_checkpoint(overrides)
    return folder is not None and config_of(folder) is not None


def config_of(folder: Path) -> Path | None:
    """config.yaml of the run in `folder`; written anew from its newest checkpoint if it was deleted. None if there is
    no run."""
    run = Paths(folder)
    if not os.path.lexists(run.config) and any(run.checkpoints.glob("step-*")):
        from lmctl.train.unfinished import restore_config

        restore_config(run)
    return run.config if run.config.exists() else None


def folder_of(overrides: Overrides, composer: Composer) -> Path | None:
    """The run directory of name=... or run_dir=...; None if neither is given."""
    name, run_dir = map(overrides.text, ("name", "run_dir"))
    text = run_dir or (None if name is None else f"runs/{name}")
    if text is not None and "${" in text:
        words = overrides.map(lambda one: one.as_text() if one.key in ("name", "run_dir") else one)
        text = str(composer.compose(words.render()).run_dir)
    return None if text is None else path_of(text)


def folder_of_checkpoint(overrides: Overrides) -> Path:
    """The run of `resume=runs/NAME/checkpoints/step-...`. ConfigError for `resume=auto`, which names no run."""
    checkpoint = overrides.text("resume")
    if checkpoint in (None, "auto"):
        raise ConfigError("resume=auto does not say which run", "give name=... or run_dir=...")
    return path_of(str(checkpoint)).parent.parent
