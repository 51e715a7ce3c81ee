"""One verb as a Hydra application: checked first, then handed to `hydra.main`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, cast, get_type_hints

import hydra
from omegaconf import DictConfig, OmegaConf

from lmctl.cli import control, grid, meant, stages, sweep, teacher, typed
from lmctl.cli.arguments import Arguments, UnknownFlag, as_text, key_of, parsed, readable, stamp
from lmctl.config.audit import audit, refuse_tokens
from lmctl.config.build import check, without_none
from lmctl.config.compose import VERSION_BASE, Composer, conf_dir
from lmctl.config.keys import keys_in
from lmctl.config.schema import ProcessLauncherConfig
from lmctl.core.errors import ConfigError, Exit, LmctlError
from lmctl.core.files import path_of, refuse_folder
from lmctl.core.places import IsFreeText, Paths
from lmctl.core.words import literal, quoted, setting

NOT_A_RUN = ("--cfg", "--info", "--hydra-help", "--shell-completion")
"""Flags with which Hydra shows something instead of running the verb."""


def _marks(hint: Any) -> tuple[Any, ...]:
    return tuple(getattr(without_none(hint), "__metadata__", ()))


def _bare(hint: Any) -> Any:
    return getattr(without_none(hint), "__origin__", without_none(hint))


class Application:
    """`lmctl VERB words...`"""

    def __init__(self, verb: str, words: list[str]) -> None:
        self.verb = verb
        try:
            self.arguments = Arguments.parse(words)
        except UnknownFlag as unknown:
            raise meant.flag(unknown, Composer(verb)) from None
        self.composer = Composer(
            verb, self.arguments.flags.get("--config-name"), self.arguments.flags.get("--config-dir")
        )
        hints = get_type_hints(self.composer.schema, include_extras=True)
        self.has_run_dir = "run_dir" in hints
        free = [key for key, hint in hints.items() if IsFreeText in _marks(hint)]
        typed.refuse_hydras_own(self.arguments.overrides)
        typed.refuse_slips(self.arguments.overrides, {*hints, *self.composer.all_groups, "hydra"}, free)
        if not self.arguments.has("--help"):
            for place, word in enumerate(self.arguments.overrides):
                if "=" not in word.lstrip("="):
                    raise meant.lone_word(word, place, self.arguments.overrides, self.composer)
        several = self.arguments.has("--multirun")
        # With -m, a comma in `name=a,b` parts two values; without it, it is text.
        texts = [] if several else [key for key, hint in hints.items() if _bare(hint) is str]
        self.arguments.overrides = [
            as_text(word, free=key_of(word) in free) if key_of(word) in texts and word[0] != "~" else readable(word)
            for word in self.arguments.overrides
        ]
        self._start_from_a_model()
        if "teacher" in hints and not self._goes_on():
            self.arguments.overrides += teacher.implied(self.arguments)
        words = self.arguments.overrides
        self.stage_words = [word for word in words if word.startswith(stages.PREFIX)]
        self.arguments.overrides = [word for word in words if word not in self.stage_words]
        kept = ("--config-dir", "--config-name", "--from")
        self.job_flags = [word for name in kept if (value := self.arguments.flags.get(name)) for word in (name, value)]
        """Flags that the processes of a sweep, or of stages, must have as well."""
        sweep.register(verb, [*self.job_flags, *self.stage_words], self.has_run_dir, free)

    def _start_from_a_model(self) -> None:
        """`init_from=X` means the model and the tokenizer of X, unless others are named."""
        if self.arguments.text("init_from") is None or "model" not in self.composer.defaults:
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
            from lmctl.cli.help import topic_help, verb_help

            topics = [word] if (word := arguments.flags["--help"]) else arguments.overrides
            print("\n\n".join(topic_help(self.composer, word) for word in topics) or verb_help(self.composer))
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
            self._settle_sweep()
            return grid.plan_cells(self)
        if arguments.has("--multirun"):
            self._check_sweep()
        elif not any(map(arguments.has, NOT_A_RUN)):
            self._name_run()
            cfg = self.settled()
            if self.stage_words or (cfg.get("stages") and cfg.stage is None):
                if self.verb == "plan":
                    return grid.plan_stages(self, cfg)
                self._run_stages(cfg)
                return Exit.DONE
            check(cfg, self.composer.schema)
            self._refuse_folders(cfg)
            self._hand_over()
            if self.verb == "distill":
                control.conclude(cfg, self.job_flags)
            return Exit.DONE
        elif not arguments.has("--shell-completion"):
            self._name_run()
            self.settled()
        self._hand_over()
        sweep.conclude()
        return Exit.DONE

    def settled(self) -> DictConfig:
        """The config that the overrides make, once those of text keys are taken as they were typed."""
        typed_words = self.arguments.overrides
        # A comma means several values, unless the key's value is text; which it is, is known only when they are in.
        tried = [self._as_one(word) for word in typed_words]
        try:
            cfg = self.composer.task(tried)
        except Exception:
            if tried == typed_words:
                raise
            return self.composer.task(typed_words)
        keys = {key.name: key for key in keys_in(cfg, self.composer.schema)}
        self.arguments.overrides = typed.kept_as_typed(typed_words, keys, several=False)
        return cfg if self.arguments.overrides == tried else self.composer.task(self.arguments.overrides)

    def _as_one(self, word: str) -> str:
        override = parsed(word)
        group = key_of(word).partition("@")[0]
        several = override is not None and not word.startswith("~") and override.is_sweep_override()
        return as_text(word) if several and group not in self.composer.all_groups else word

    def _settle_sweep(self) -> None:
        """The same for a sweep, by what the first of its jobs is made of."""
        extra = ["run_dir=unused", "name=unused"] if self.has_run_dir else []
        _, samples = self.composer.sweep_configs(self.arguments.overrides)
        cfg = self.composer.task([*samples[0], *extra])
        keys = {key.name: key for key in keys_in(cfg, self.composer.schema)}
        self.arguments.overrides = typed.kept_as_typed(self.arguments.overrides, keys, several=True)

    def _refuse_folders(self, cfg: DictConfig) -> None:
        """Folders that cannot be made are refused before any work."""
        for key in ("run_dir", "cache_dir"):
            if cfg.get(key) is not None:
                refuse_folder(Path(cfg[key]), key)

    def _folder(self) -> Path | None:
        """Where the run lies that name=... or run_dir=... means; None if neither is given."""
        name, run_dir = map(self.arguments.text, ("name", "run_dir"))
        text = run_dir or (None if name is None else f"runs/{name}")
        if text is not None and "${" in text:
            words = [
                as_text(word) if key_of(word) in ("name", "run_dir") else word for word in self.arguments.overrides
            ]
            text = str(self.composer.compose(words).run_dir)
        return None if text is None else path_of(text)

    def _goes_on(self) -> bool:
        """Whether the config of a run, which says everything, is the base."""
        resume = self.arguments.text("resume")
        if "--from" in self.arguments.flags:
            return True
        if not self.has_run_dir or resume in (None, "false"):
            return False
        own = path_of(str(resume)).parent.parent if resume != "auto" else None
        folder = self._folder() or own
        return folder is not None and Paths(folder).config.is_file()

    def _resumed_config(self) -> str | None:
        """A run that goes on is the run it was: its own config is the base, and needs no repeating."""
        resume = self.arguments.text("resume")
        if not self.has_run_dir or resume in (None, "false") or self.arguments.has("--multirun"):
            return None
        folder = self._folder()
        if folder is None and resume != "auto":  # runs/<name>/checkpoints/step-...
            folder = path_of(str(resume)).parent.parent
            self.arguments.overrides.append(setting("run_dir", str(folder)))
        if folder is None:
            raise ConfigError("resume=auto does not say which run", "give name=... or run_dir=...")
        refuse_folder(folder, "run_dir")
        if staged := stages.recorded(folder):
            for word in reversed(staged["words"]):
                (self.stage_words if word.startswith(stages.PREFIX) else self.arguments.overrides).insert(0, word)
            return None
        config = Paths(folder).config
        return str(config) if config.is_file() else None

    def _name_run(self) -> None:
        """A run that nobody named is named after the verb and the time."""
        given = self.arguments.text("name") or self.arguments.text("run_dir")
        if self.has_run_dir and not given and self.arguments.value("name") != "":
            self.arguments.overrides.append(f"name={self.verb}-{stamp()}")

    def _run_stages(self, cfg: DictConfig) -> None:
        """Check every stage, then run them in turn."""
        folder = Path(cfg.run_dir)
        self._refuse_folders(cfg)
        if Paths(folder).config.exists():
            raise ConfigError(f"{folder} holds a single run, so no stages can go there", "choose another name=...")
        settings = cast("dict[str, Any]", OmegaConf.to_container(cfg.get("stages", OmegaConf.create())))
        words = self.arguments.overrides
        jobs = stages.plan_stages(settings, words, self.stage_words, folder)
        for job in jobs:
            one = Application(stages.verb_of(job), [*self.job_flags, *job.overrides, "run_dir=unused", "name=unused"])
            check(one.settled(), one.composer.schema)
        stages.run_stages(jobs, self.job_flags, [*words, *self.stage_words], folder)

    def _check_sweep(self) -> None:
        """Find the mistakes of every job that can be found before the first one starts."""
        audit(self.composer.sweep_configs(self.arguments.overrides)[0])  # before anything of it is asked
        self._settle_sweep()
        overrides = self.arguments.overrides
        cfg, samples = self.composer.sweep_configs(overrides)
        extra = ["run_dir=unused", "name=unused"] if self.has_run_dir else []
        for sample in samples:
            check(self.composer.task([*sample, *extra]), self.composer.schema)
        if self.verb in ("train", "distill"):
            sweep.refuse(self._refused(overrides, extra))
        folder = sweep.sweep_dir([word for word in overrides if not word.startswith("hydra")])
        refuse_folder(folder, "run_dir")
        if Paths(folder).config.exists():
            raise ConfigError(f"{folder} holds a single run, so no sweep can go there", "choose another name=...")
        if cfg.hydra.launcher._target_ == ProcessLauncherConfig._target_:
            self.arguments.overrides = [w for w in overrides if key_of(w) not in ("name", "run_dir")]
        elif self.has_run_dir:  # jobs in one process, or on a cluster: Hydra's job number tells them apart
            self.arguments.overrides.append(f"run_dir={quoted(f'{folder}/${{hydra:job.num}}')}")
        self.arguments.overrides.append(f"hydra.sweep.dir={literal(str(folder))}")

    def _refused(self, overrides: list[str], extra: list[str]) -> dict[frozenset[str], LmctlError]:
        """What is said against the jobs of a sweep that are not legal, by their overrides: it is known before the first
        one starts. Values without an end (another sweeper's) are not tried."""
        from lmctl.verbs.train import check_legal

        words = [word for word in overrides if not word.startswith("hydra") and key_of(word) not in ("name", "run_dir")]
        found: dict[frozenset[str], LmctlError] = {}
        try:
            cells = self.composer.cells(words)
        except ConfigError:
            return found
        for cell in cells:
            try:
                check_legal(self.composer.task([*cell, *extra]))
            except ConfigError as error:
                found[frozenset(cell)] = error
        return found

    def _hand_over(self) -> None:
        original = sys.argv
        failed: list[BaseException] = []

        def job(cfg: DictConfig) -> None:
            sys.argv = original  # what the user typed, for the record and for the run's other processes
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
