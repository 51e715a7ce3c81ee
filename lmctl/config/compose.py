"""Composing a verb's config with Hydra's loader, before Hydra runs a job.

Hydra creates directories, callbacks and log handlers as soon as it runs. The same composition is made here first, where
a mistake leaves no files behind and untrusted code in a config is not run. Private parts of Hydra are imported in this
file only.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from lmctl.config.audit import audit, check_file, read_from_environment
from lmctl.config.build import check
from lmctl.config.comments import CommentedKey, commented_keys, first_comment
from lmctl.config.earlier_run import on_top_of, saved_groups
from lmctl.config.keys import expand_home
from lmctl.config.options import spell_out
from lmctl.config.overrides import Overrides
from lmctl.config.saved import read_config
from lmctl.config.store import conf_dir, register, register_launcher
from lmctl.config.table import defaults
from lmctl.config.trial import tried
from lmctl.config.verb import verb, verbs
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of
from lmctl.core.suggest import nearest

FROM_FILE = "from_file"
"""Name of the `--from FILE` config in Hydra's config store."""

VERSION_BASE = "1.3"


def flag_parser() -> argparse.ArgumentParser:
    """Hydra's own argument parser for flags."""
    return get_args_parser()


class _Repository(ConfigRepository):
    """Hydra's config repository; files of `--config-dir` are checked before they are parsed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Repository:
        """A shallow copy: Hydra copies the repository several times per command to change its list of sources. The
        sources, with all schemas, never change, and copying them took a fifth of the time of composing."""
        other = copy(self)
        other.sources = list(self.sources)
        return other

    def load_config(self, config_path: str) -> Any:
        if config_path.startswith("/") or ".." in config_path.split("/"):
            raise ConfigError(f"{config_path}: a config is named by its place below the folder of configs")
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None and source.scheme() == "file" and (folder := path_of(source.path)) != conf_dir():
            check_file(folder, folder / f"{config_path.removesuffix('.yaml')}.yaml")
        return super().load_config(config_path)


def _loader(path: Any) -> ConfigLoaderImpl:
    loader = ConfigLoaderImpl(path)
    loader.repository = _Repository(path)
    return loader


class Composer:
    """Composes the config of one verb from its YAML files and the overrides of a command line."""

    def __init__(self, name: str, config_name: str | None = None, config_dir: str | None = None) -> None:
        """`name` is the verb's; `config_name` and `config_dir` are Hydra's flags."""
        version.setbase(VERSION_BASE)
        for one in verbs().values():  # all of them: a user's own config may be based on any
            register(one)
        register_launcher()
        self.verb = verb(name)
        self.schema = self.verb.schema
        self.config_name = config_name or name
        self.config_dir = config_dir
        self.hydras = DictConfig({})
        """The `hydra` node of the config of the last `task`."""
        self.typed = Overrides()
        """The overrides of the last command line, for error messages."""
        self.choices = Overrides()
        """The options that they choose, likewise."""
        self.typed_as = dict[str, str]()
        """Groups that it may call by another name, and does not by their own, likewise: `format=` for `export=`."""
        self.read = dict[str, str]()
        """Values read from the environment, with what the last command line wrote for them."""
        path = create_config_search_path(str(conf_dir()))
        if config_dir is not None:
            if not path_of(config_dir).is_dir():
                raise ConfigError(f"--config-dir {config_dir}: no such directory")
            folder = f"file://{path_of(config_dir).absolute()}"
            path.prepend("command-line", folder, SearchPathQuery(provider="schema"))
        self.loader = _loader(path)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The whole config of a single job, the hydra node included. All wrong overrides are reported together."""
        return tried(
            self._compose, list(overrides), self.all_groups, lambda cfg: check(self._without_hydra(cfg), self.schema)
        )

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        self.choices = self._choices(overrides)
        return self._audited(overrides, RunMode.RUN)

    def _audited(self, overrides: Sequence[str], mode: RunMode) -> DictConfig:
        """The composed config, before anything in it is resolved, imported or run."""
        typed = Overrides.typed(overrides)
        self.read = read_from_environment(typed)
        cfg = self.loader.load_configuration(self.config_name, list(overrides), mode)
        audit(cfg, typed)
        return cfg

    def as_typed(self, text: str) -> str:
        """`text` with groups called as on the command line, and `${oc.env:NAME}` in the place of what was read from the
        environment, except paths."""
        for group, name in self.typed_as.items():
            text = re.sub(rf"(?<![\w./-]){group}(?==|'|\.\w)", name, text)
        for value, written in self.read.items():
            text = text.replace(value, written)
        return text

    def _choices(self, overrides: Sequence[str]) -> Overrides:
        chosen, _ = Overrides.typed(overrides).split(lambda one: one.key in self.all_groups and not one.sign)
        for override in chosen:
            if override.value == "":
                raise ConfigError(
                    f"{override.key}= names no option", f"options: {', '.join(self.options(override.key))}"
                )
            value = override.parsed_value() if str(override.value).startswith("[") else None
            if isinstance(value, list) and not all(isinstance(name, str) for name in value):
                raise ConfigError(
                    f"{override}: a config group takes the name of an option, or a list of names",
                    f"options: {', '.join(self.options(override.key))}",
                )
        return chosen

    def task(self, overrides: Sequence[str]) -> DictConfig:
        """The config that the verb receives."""
        self.typed = Overrides.typed(overrides)
        cfg = self.compose(overrides)
        self.hydras = OmegaConf.masked_copy(cfg, "hydra")
        return self._without_hydra(cfg)

    def _without_hydra(self, cfg: DictConfig) -> DictConfig:
        """The config without Hydra's settings."""
        with open_dict(cfg):
            del cfg["hydra"]
        return self.complete(cfg)

    def run_job(self, job: Callable[[], None]) -> None:
        """Run `job()` as a Hydra job with the logging and the environment of the `hydra` node of the last `task`: all
        that `hydra.main` does besides composing the config."""
        failed: list[Exception] = []

        def task(_: DictConfig) -> None:
            try:
                job()
            except Exception as error:
                failed.append(error)  # raised below: Hydra would print its own message

        context = HydraContext(config_loader=self.loader, callbacks=Callbacks(self.hydras))
        run_job(task, self.hydras, "hydra.run.dir", None, context)
        for error in failed:
            raise error

    def complete(self, cfg: DictConfig) -> DictConfig:
        """`cfg` with every option name replaced by the option's settings, and `~` expanded in paths."""
        spell_out(cfg, self.schema, self._option_for)
        expand_home(cfg, self.schema)
        if cfg.get("resume") == "False":  # `resume=false` is parsed as a boolean
            cfg.resume = "false"
        return cfg

    def sweep_configs(self, overrides: Sequence[str]) -> tuple[DictConfig, list[list[str]]]:
        """The config of the sweep itself, and the overrides of a sample of its jobs, in which each swept value occurs.

        Values that only another sweeper understands (`lr=interval(0.01,0.1)`) are omitted.
        """
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(list(overrides))
        kept = [o for o in parsed if not o.is_sweep_override() or o.is_discrete_sweep()]
        choices = [BasicSweeper.split_arguments([override], None)[0] for override in kept]
        for override, jobs in zip(kept, choices, strict=True):
            if not jobs:
                raise ConfigError(f"{override.input_line} stands for no value at all")
        first = [jobs[0][0] for jobs in choices]
        self.typed, self.choices = Overrides.typed(first), self._choices(first)
        samples = [first]
        for at, jobs in enumerate(choices):
            samples += [[*first[:at], job[0], *first[at + 1 :]] for job in jobs[1:]]
        return self._audited(overrides, RunMode.MULTIRUN), samples

    def cells(self, overrides: Sequence[str]) -> list[list[str]]:
        """The overrides of every job of a grid sweep: all combinations."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(list(overrides))
        for override in parsed:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line} has no end of values", f"list them: {override.key_or_group}=a,b"
                )
        return BasicSweeper.split_arguments(parsed, None)[0]

    @cached_property
    def defaults(self) -> dict[str, str | None]:
        """The verb's config groups and the default option of each."""
        source = self.loader.repository.load_config(self.config_name)
        entries = list(source.defaults_list or ()) if source is not None else []
        own = any(isinstance(one, ConfigDefault) and one.path == f"groups_{self.verb.name}" for one in entries)
        return (defaults(self.schema) if own else {}) | {
            str(entry.group): None if entry.value is None else str(entry.value)
            for entry in entries
            if isinstance(entry, GroupDefault) and not entry.is_override()
        }

    @cached_property
    def all_groups(self) -> list[str]:
        """All config groups."""
        return [group for group in self.loader.list_groups("") if group != "hydra"]

    def options(self, group: str) -> list[str]:
        """The options of a config group."""
        return self.loader.get_group_options(group, ObjectType.CONFIG)

    def describe(self, group: str, option: str) -> str:
        """The description of an option: the first comment line of its file (after Hydra's `# @package`)."""
        file = self.file_of(group, option)
        return "" if file is None else first_comment(file.read_text(encoding="utf-8"))

    def file_of(self, group: str, option: str) -> Path | None:
        """The YAML file of an option, checked if it is of `--config-dir`; None if it has none."""
        name = f"{group}/{option}.yaml"
        if self.config_dir and (own := path_of(self.config_dir) / name).is_file():
            check_file(path_of(self.config_dir), own)
            return own
        return shipped if (shipped := conf_dir() / name).is_file() else None

    def keys(self, group: str, option: str) -> list[CommentedKey]:
        """The keys in an option's own file: what `group.key=value` can change."""
        file = self.file_of(group, option)
        return [] if file is None else commented_keys(file.read_text(encoding="utf-8"))

    def _option_for(self, group: str, name: str, place: str) -> DictConfig:
        if name not in self.options(group):
            raise self.no_option(group, name, place)
        return self.load_option(group, name)

    def load_option(self, group: str, name: str) -> DictConfig:
        """The settings of one option, composed alone."""
        cfg = self.loader.load_configuration(f"{group}/{name}", [], RunMode.RUN)
        node = cfg[group]
        node._set_parent(None)
        return node

    def option_in_place(self, group: str, option: str) -> DictConfig:
        """The settings of one option inside the verb's config, where it may choose options of other groups."""
        return self.loader.load_configuration(self.config_name, [f"{group}={option}"], RunMode.RUN)[group]

    def no_option(self, group: str, name: str, place: str) -> ConfigError:
        """The error for an unknown option; `place` is the key that named it."""
        options = self.options(group)
        close = nearest(name, options)
        where = f" ({place})" if place != group else ""
        hint = f"; did you mean {place}={close}?" if close else ""
        return ConfigError(
            f"no option '{name}' in group '{group}'{where}{hint}", f"options: {', '.join(options) or 'none'}"
        )

    def start_from(self, file: str, overrides: Overrides, only: tuple[str, ...] = ()) -> None:
        """Use the resolved config of an earlier run as the base; `overrides` replace its groups. With `only`, take
        these groups and its sequence length alone."""
        replaced = {override.key for override in overrides if not override.sign}
        saved = read_config(Path(file), replaced)
        node = on_top_of(
            saved_groups(saved, only) if only else saved, self.verb, self.defaults, replaced & {*self.all_groups}
        )
        ConfigStore.instance().store(name=FROM_FILE, node=node, provider="lmctl")
        self.config_name = FROM_FILE
        # The old loader has cached the store's earlier contents.
        self.loader = _loader(self.loader.config_search_path)
