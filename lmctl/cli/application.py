"""One verb as a Hydra application: checked first, then handed to `hydra.main`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, cast, get_type_hints

import hydra
from omegaconf import DictConfig, OmegaConf

from lmctl.cli import control, grid, stages, sweep, teacher
from lmctl.cli.arguments import Arguments, quoted, readable, stamp
from lmctl.config.audit import audit, refuse_tokens
from lmctl.config.build import check, without_none
from lmctl.config.compose import VERSION_BASE, Composer, conf_dir
from lmctl.config.schema import ProcessLauncherConfig
from lmctl.core.errors import ConfigError, Exit
from lmctl.core.places import Paths

NOT_A_RUN = ("--cfg", "--info", "--hydra-help", "--shell-completion")
"""Flags with which Hydra shows something instead of running the verb."""


class Application:
    """`lmctl VERB words...`"""

    def __init__(self, verb: str, words: list[str]) -> None:
        self.verb = verb
        self.arguments = Arguments.parse(words)
        self.composer = Composer(
            verb, self.arguments.flags.get("--config-name"), self.arguments.flags.get("--config-dir")
        )
        hints = get_type_hints(self.composer.schema)
        self.has_run_dir = "run_dir" in hints
        # With -m, a comma in `name=a,b` separates two values; without it, it is text.
        texts = [] if self.arguments.has("--multirun") else [key for key in hints if without_none(hints[key]) is str]
        self.arguments.overrides = [readable(word, texts) for word in self.arguments.overrides]
        self._start_from_a_model()
        if "teacher" in hints and not self._goes_on():
            self.arguments.overrides += teacher.implied(self.arguments)
        words = self.arguments.overrides
        self.stage_words = [word for word in words if word.startswith(stages.PREFIX)]
        self.arguments.overrides = [word for word in words if word not in self.stage_words]
        kept = ("--config-dir", "--config-name", "--from")
        self.job_flags = [word for name in kept if (value := self.arguments.flags.get(name)) for word in (name, value)]
        """Flags that the processes of a sweep, or of stages, must have as well."""
        sweep.register(verb, [*self.job_flags, *self.stage_words], self.has_run_dir)

    def _start_from_a_model(self) -> None:
        """`init_from=X` means the model and the tokenizer of X, unless others are named."""
        value = self.arguments.value("init_from")
        if value in (None, "", "null") or "model" not in self.composer.defaults:
            return
        for group in ("model", "tokenizer"):
            if self.arguments.value(group) is None:
                self.arguments.overrides.append(f"{group}=pretrained")
        if self.arguments.value("tokenizer") == "pretrained" and self.arguments.value("tokenizer.path") is None:
            self.arguments.overrides.append("tokenizer.path=${init_from}")

    def run(self) -> int:
        """Check the command line, then let Hydra carry it out."""
        arguments = self.arguments
        if arguments.has("--help"):
            from lmctl.cli.help import verb_help

            print(verb_help(self.composer))
            return Exit.DONE
        refuse_tokens(arguments.overrides)
        if (file := arguments.flags.get("--from") or self._resumed_config()) is not None:
            self.composer.start_from(file, arguments.overrides)
        elif (
            "distill" in self.composer.defaults
            and not self._goes_on()
            and (file := teacher.text_of(arguments)) is not None
        ):
            self.composer.start_from(file, arguments.overrides, teacher.TEXT)
        if self.verb == "plan" and arguments.has("--multirun") and not any(map(arguments.has, NOT_A_RUN)):
            return grid.plan_cells(self)
        if arguments.has("--multirun"):
            self._check_sweep()
        elif not any(map(arguments.has, NOT_A_RUN)):
            self._name_run()
            cfg = self.composer.task(arguments.overrides)
            if self.stage_words or (cfg.get("stages") and cfg.stage is None):
                if self.verb == "plan":
                    return grid.plan_stages(self, cfg)
                self._run_stages(cfg)
                return Exit.DONE
            check(cfg, self.composer.schema)
            self._hand_over()
            if self.verb == "distill":
                control.conclude(cfg, self.job_flags)
            return Exit.DONE
        elif not arguments.has("--shell-completion"):
            self._name_run()
        self._hand_over()
        sweep.conclude()
        return Exit.DONE

    def _text(self, key: str) -> str | None:
        """What `key` is given, without the quotes that Hydra's grammar may have needed."""
        value = self.arguments.value(key)
        return value and value.strip("'\"")

    def _goes_on(self) -> bool:
        """Whether the config of a run, which says everything, is the base."""
        resume, name, run_dir = map(self._text, ("resume", "name", "run_dir"))
        if "--from" in self.arguments.flags:
            return True
        if resume in (None, "false"):
            return False
        own = Path(resume).parent.parent if resume != "auto" and name is None else Path(f"runs/{name}")
        return Paths(Path(run_dir) if run_dir else own).config.is_file()

    def _resumed_config(self) -> str | None:
        """A run that goes on is the run it was: its own config is the base, and needs no repeating."""
        resume, name, run_dir = map(self._text, ("resume", "name", "run_dir"))
        if not self.has_run_dir or resume in (None, "false") or self.arguments.has("--multirun"):
            return None
        if resume != "auto" and name is None and run_dir is None:  # runs/<name>/checkpoints/step-...
            run_dir = str(Path(resume).parent.parent)
            self.arguments.overrides.append(f"run_dir={quoted(run_dir)}")
        if name is None and run_dir is None:
            raise ConfigError("resume=auto does not say which run", "give name=... or run_dir=...")
        folder = Path(run_dir or f"runs/{name}")
        if staged := stages.recorded(folder):
            for word in reversed(staged["words"]):
                (self.stage_words if word.startswith(stages.PREFIX) else self.arguments.overrides).insert(0, word)
            return None
        config = Paths(folder).config
        return str(config) if config.is_file() else None

    def _name_run(self) -> None:
        """A run that nobody named is named after the verb and the time."""
        given = self.arguments.value("name") or self.arguments.value("run_dir")
        if self.has_run_dir and not given:
            self.arguments.overrides.append(f"name={self.verb}-{stamp()}")

    def _run_stages(self, cfg: DictConfig) -> None:
        """Check every stage, then run them in turn."""
        folder = Path(cfg.run_dir)
        if Paths(folder).config.exists():
            raise ConfigError(f"{folder} holds a single run, so no stages can go there", "choose another name=...")
        settings = cast("dict[str, Any]", OmegaConf.to_container(cfg.get("stages", OmegaConf.create())))
        words = self.arguments.overrides
        jobs = stages.plan_stages(settings, words, self.stage_words, folder)
        for job in jobs:
            one = Application(stages.verb_of(job), [*self.job_flags, *job.overrides, "run_dir=unused", "name=unused"])
            check(one.composer.task(one.arguments.overrides), one.composer.schema)
        stages.run_stages(jobs, self.job_flags, [*words, *self.stage_words], folder)

    def _check_sweep(self) -> None:
        """Find the mistakes of every job that can be found before the first one starts."""
        overrides = self.arguments.overrides
        cfg, samples = self.composer.sweep_configs(overrides)
        audit(cfg)
        extra = ["run_dir=unused", "name=unused"] if self.has_run_dir else []
        for sample in samples:
            check(self.composer.task([*sample, *extra]), self.composer.schema)
        folder = sweep.sweep_dir([word for word in overrides if not word.startswith("hydra")])
        if Paths(folder).config.exists():
            raise ConfigError(f"{folder} holds a single run, so no sweep can go there", "choose another name=...")
        if cfg.hydra.launcher._target_ == ProcessLauncherConfig._target_:
            self.arguments.overrides = [w for w in overrides if sweep.key_of(w) not in ("name", "run_dir")]
        elif self.has_run_dir:  # jobs in one process, or on a cluster: Hydra's job number tells them apart
            self.arguments.overrides.append(f"run_dir='{folder}/${{hydra:job.num}}'")
        self.arguments.overrides.append(f"hydra.sweep.dir={quoted(str(folder))}")

    def _hand_over(self) -> None:
        original = sys.argv
        failed: list[BaseException] = []

        def job(cfg: DictConfig) -> None:
            sys.argv = original  # what the user typed, for the record and for the run's other processes
            if self.verb in ("train", "distill"):
                from lmctl.core import stop

                stop.install()
            importlib.import_module(f"lmctl.verbs.{self.verb}").run(self.composer.complete(cfg))

        def task(cfg: DictConfig) -> None:
            try:
                job(cfg)
            except Exception as error:
                if self.arguments.has("--multirun"):  # another launcher than ours wants to hear of it
                    raise
                failed.append(error)  # raised below: Hydra would print a line of its own about it

        sys.argv = [original[0], *self.arguments.hydra_words()]
        start = hydra.main(
            version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=self.composer.config_name
        )
        start(task)()
        for error in failed:
            raise error
