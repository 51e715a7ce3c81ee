"""Runs one command line, from the typed words to the verb's `run`.

The overrides are rewritten in a few steps: text values are quoted; a model or a teacher implies further settings. Then
a config is composed, once, checked, and given to the verb. Hydra itself runs sweeps and handles its own information
flags.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast, get_type_hints

import hydra
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from lmctl.cli import did_you_mean, init_from, plan_grid, raw_words, search_space, sweep_check, teacher, which_run
from lmctl.cli.arguments import SHOWS, Arguments, UnknownFlag, stamp
from lmctl.config.audit import refuse_hydras, refuse_tokens
from lmctl.config.compose import VERSION_BASE, Composer
from lmctl.config.keys import keys_in
from lmctl.config.overrides import Override, Overrides
from lmctl.config.store import conf_dir
from lmctl.config.table import typed_names, without_none
from lmctl.config.verb import GridVerb, SearchVerb, Verb
from lmctl.core.errors import Exit
from lmctl.core.files import refuse_file, refuse_folder
from lmctl.core.paths import IsFreeText, IsResult
from lmctl.core.terminal import only_messages
from lmctl.jobs import stages, sweep
from lmctl.jobs.job import Job, alone_in, refuse_single_run

UNNAMED = ("run_dir=unused", "name=unused")
"""Overrides for a config that is composed only to be checked or shown."""


class Application:
    """One invocation `lmctl VERB words...`."""

    def __init__(self, verb: str, words: list[str]) -> None:
        try:
            self.arguments = Arguments.parse(words)
        except UnknownFlag as unknown:
            raise did_you_mean.flag(unknown, Composer(verb)) from None
        self.argv, flags = sys.argv, self.arguments.flags
        self.composer = Composer(verb, flags.get("--config-name"), flags.get("--config-dir"))
        self.verb = self.composer.verb
        self.hints = get_type_hints(self.composer.schema, include_extras=True)
        self.free = [key for key, hint in self.hints.items() if IsFreeText in _marks(hint)]
        """Keys whose values are literal text."""
        self.texts = [key for key, hint in self.hints.items() if _without_marks(hint) is str]
        """The verb's own keys whose values are text."""
        self.several = self.arguments.has("--multirun") or isinstance(self.verb, SearchVerb)
        names, given = typed_names(self.composer.schema), self.arguments.overrides
        heads = {one.key.partition(".")[0] for one in given}
        self.composer.typed_as = {group: name for name, group in names.items() if group not in heads}
        typed = raw_words.by_group_name(given, names)
        if not self.arguments.has("--help"):
            if self.verb.places is not None:
                typed = raw_words.with_places(typed, self.verb.places, self._known)
            typed = raw_words.with_keys(typed, self.verb.words, self._known)
        self._refuse_typing_mistakes(typed)
        overrides = raw_words.readable(typed.map(which_run.as_recorded), self.texts, self.free, self.several)
        if "model" in self.composer.defaults:
            overrides += init_from.implied(overrides)
        self.stage_overrides, self.overrides = overrides.split(stages.is_for_a_stage)
        if "teacher" in self.hints and not self._has_run_as_base():
            self.overrides += teacher.implied(self.overrides)

    @property
    def _runnable(self) -> Verb[Any]:
        """The verb, where it runs a single config."""
        assert isinstance(self.verb, Verb)
        return self.verb

    @property
    def _known(self) -> set[str]:
        """The keys and groups of the verb."""
        return {*self.hints, *self.composer.all_groups}

    def _refuse_typing_mistakes(self, overrides: Overrides) -> None:
        """ConfigError for typing mistakes: full-width punctuation, words without `=`, Hydra settings that lmctl
        overrides."""
        raw_words.refuse_hydras_own(overrides)
        refuse_hydras(overrides)
        raw_words.refuse_slips(overrides, {*self._known, "hydra"}, self.free)
        if not self.arguments.has("--help"):
            for place, override in enumerate(overrides):
                if override.value is None or not override.key:
                    raise did_you_mean.lone_word(place, overrides.render(), self.composer)

    def run(self) -> int:
        """Check the command line and run it; returns the exit code."""
        arguments = self.arguments
        if arguments.has("--help"):
            print(self._help())
            return Exit.DONE
        refuse_tokens(self.overrides + self.stage_overrides)
        self._choose_base()
        shows = any(map(arguments.has, SHOWS))
        if isinstance(self.verb, SearchVerb) and not shows:
            self.quote_sweep()
            return search_space.run_search(self)
        if self.several and isinstance(self.verb, GridVerb) and not shows:
            self.quote_sweep()
            return plan_grid.plan_cells(self, self.verb)
        if self.several:
            jobs, folder = sweep_check.checked_sweep(self)
            sweep.register_launcher()
            if shows:
                self._run_hydra(jobs)
                return Exit.DONE
            with only_messages(), alone_in(folder):
                self._run_hydra(jobs)
                jobs.conclude()
        elif shows:
            if not arguments.has("--shell-completion"):
                self._name_run()
                self.final_config()
            self._run_hydra(self.run_job)
        else:
            self._name_run()
            return self._run_verb(self.final_config())
        return Exit.DONE

    def _run_verb(self, cfg: DictConfig) -> int:
        """Run the verb, or the stages of `cfg`, with the composed config."""
        if self.has_stages(cfg):
            if isinstance(self.verb, GridVerb):
                return plan_grid.plan_stages(self, self.verb, cfg)
            self._run_stages(cfg)
            return Exit.DONE
        verb = self._runnable
        config = verb.read(cfg)
        self.refuse_places(cfg)
        with nullcontext() if verb.prints else only_messages():
            self.composer.run_job(lambda: verb.run(config))
        return Exit.DONE

    def _help(self) -> str:
        from lmctl.cli.help import verb_help
        from lmctl.config.topics import topic_help

        typed = Overrides.typed([word] if (word := self.arguments.flags["--help"]) else self.overrides.render())
        topics = raw_words.by_group_name(typed, typed_names(self.composer.schema)).render()
        return "\n\n".join(
            topic_help(self.composer, which_run.RECORDED_AS.get(word, word)) for word in topics
        ) or verb_help(self.composer)

    def _choose_base(self) -> None:
        """Choose the base config under the overrides, if it is not the verb's own: a config file, the resumed run, or
        the data of the teacher's run."""
        if (file := self.arguments.flags.get("--from") or self._resumed_config()) is not None:
            self.composer.start_from(file, self.overrides)
        elif "distill" not in self.composer.defaults or self._has_run_as_base():
            return
        elif (file := teacher.text_of(self.overrides)) is not None:
            self.composer.start_from(file, self.overrides, teacher.TEXT)

    def final_config(self) -> DictConfig:
        """The composed config, after the values of text keys are quoted."""
        given = self.overrides
        # A comma separates values, but not in text keys; the keys' types are known only after composing.
        tried = given.map(self._commas_as_text)
        try:
            cfg = self.composer.task(tried.render())
        except Exception:
            if tried == given:
                raise
            return self.composer.task(given.render())
        keys = {key.name: key for key in keys_in(cfg, self.composer.schema)}
        self.overrides = raw_words.kept_as_typed(given, keys, several=False)
        return cfg if self.overrides == tried else self.composer.task(self.overrides.render())

    def _commas_as_text(self, override: Override) -> Override:
        return (
            override.as_text() if override.group not in self.composer.all_groups and override.is_sweep() else override
        )

    def has_stages(self, cfg: DictConfig) -> bool:
        """Whether `cfg` defines several runs (stages)."""
        return bool(self.stage_overrides) or bool(cfg.get("stages") and cfg.stage is None)

    def stages_in(self, cfg: DictConfig, overrides: Overrides) -> list[Job]:
        """The stages as jobs; `overrides` made `cfg`."""
        settings = cast("dict[str, Any]", OmegaConf.to_container(cfg.get("stages", OmegaConf.create())))
        stages.refuse_foreign_words(settings, self._known)
        return stages.plan_stages(settings, overrides, self.stage_overrides, Path(cfg.run_dir))

    def _run_stages(self, cfg: DictConfig) -> None:
        """Check all stages, then run them in sequence."""
        folder = Path(cfg.run_dir)
        self.refuse_places(cfg)
        refuse_single_run(folder, "stages")
        jobs, flags = self.stages_in(cfg, self.overrides), self.arguments.of_jobs
        for job in jobs:
            one = Application(stages.verb_of(job), [*flags, *job.overrides, *UNNAMED])
            one.verb.check(one.final_config())
        with only_messages(), alone_in(folder):
            stages.run_stages(jobs, flags, self.overrides + self.stage_overrides, folder)

    def quote_sweep(self) -> tuple[DictConfig, list[list[str]]]:
        """Quote the text keys of a sweep, by the types in the config of its first job. Returns the sweep's own config
        and a sample of its jobs' overrides (`Composer.sweep_configs`)."""
        given = self.overrides
        whole, samples = self.composer.sweep_configs(given.render())
        keys = {key.name: key for key in keys_in(self.job_config(samples[0]), self.composer.schema)}
        self.overrides = raw_words.kept_as_typed(given, keys, several=True)
        return (whole, samples) if self.overrides == given else self.composer.sweep_configs(self.overrides.render())

    def job_config(self, words: list[str]) -> DictConfig:
        return self.composer.task([*words, *(UNNAMED if self.verb.has_run_dir else ())])

    def refuse_places(self, cfg: DictConfig) -> None:
        """ConfigError for directories that cannot be created, and result files that cannot be written."""
        for key in ("run_dir", "cache_dir"):
            if cfg.get(key) is not None:
                refuse_folder(Path(cfg[key]), key)
        for key in self.hints:
            if IsResult in _marks(self.hints[key]) and cfg.get(key) is not None:
                refuse_file(Path(cfg[key]), key)

    def _has_run_as_base(self) -> bool:
        """Whether the base config is the complete config of a run."""
        return "--from" in self.arguments.flags or which_run.resumes(self.overrides, self.composer)

    def _resumed_config(self) -> str | None:
        """The config of a resumed run, which is the base of its overrides; None if no run is resumed."""
        if self.several or not which_run.asks_to_resume(self.overrides, self.composer):
            return None
        folder = which_run.folder_of(self.overrides, self.composer)
        if folder is None:
            folder = which_run.folder_of_checkpoint(self.overrides)
            self.overrides = self.overrides.set("run_dir", str(folder))
        refuse_folder(folder, "run_dir")
        if (staged := stages.recorded_overrides(folder, self._known)) is not None:
            for_one, for_all = staged
            self.stage_overrides, self.overrides = for_one + self.stage_overrides, for_all + self.overrides
            return None
        config = which_run.config_of(folder)
        return None if config is None else str(config)

    def _name_run(self) -> None:
        """Name an unnamed run after the verb and the time."""
        given = self.overrides.text("name") or self.overrides.text("run_dir")
        if self.verb.has_run_dir and not given and self.overrides.get("name") != "":
            self.overrides = self.overrides.set("name", f"{self.verb.name}-{stamp()}")

    def _run_hydra(self, task: TaskFunction) -> None:
        """Run the command line with `hydra.main`: it shows information, or runs a sweep with `task` for each job."""
        sys.argv = [self.argv[0], *self.arguments.hydra_words(self.overrides)]
        name = self.composer.config_name
        hydra.main(version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=name)(task)()

    def run_job(self, cfg: DictConfig) -> None:
        """One job of a sweep with another launcher than ours; Hydra has composed `cfg`."""
        sys.argv = self.argv  # recorded by the run, and used by its worker processes
        self._runnable.run(self._runnable.read(self.composer.complete(cfg)))


def _marks(hint: Any) -> tuple[Any, ...]:
    return tuple(getattr(without_none(hint), "__metadata__", ()))


def _without_marks(hint: Any) -> Any:
    return getattr(without_none(hint), "__origin__", without_none(hint))
