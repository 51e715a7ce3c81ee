"""Security audit of configs: what files and recorded words may set, code that Hydra would run, secrets.

Hydra imports what `hydra.searchpath` names and calls what `hydra.callbacks`, log handlers, launchers and sweepers name,
before any code of ours; it sets environment variables, changes directories and writes where `hydra.run.dir` says.
None of this is for lmctl, so Hydra's own settings stay as shipped, but for how a sweep is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from lmctl.config.interpolations import interpolations, refuse_explosion, refuse_resolvers
from lmctl.config.overrides import Override, Overrides
from lmctl.core import yaml_files
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of
from lmctl.core.secrets import has_token, names_secret
from lmctl.core.suggest import nearest

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.", "optuna.samplers.")
"""Packages in which Hydra may find launchers and sweepers: installed plugins. (Optuna's sweeper names its sampler.)"""
TYPED = ("hydra.launcher", "hydra/launcher", "hydra.sweeper", "hydra/sweeper", "hydra.verbose")
"""Settings of Hydra that a command line may change: how a sweep is run."""
OF_FILES = ("n_jobs", "gpus_per_job")
"""Settings of `hydra.launcher` that a file may change."""
_QUIET = {"version": 1, "root": None, "disable_existing_loggers": False}
SHIPPED: dict[str, Any] = {
    "run.dir": ".",
    "sweep.dir": "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}",
    "sweep.subdir": "${hydra.job.num}",
    "output_subdir": None,
    "mode": None,
    "searchpath": [],
    "callbacks": {},
    "env": {},
    "job.chdir": False,
    "job.env_set": {},
    "job.env_copy": [],
    "job.config.override_dirname": {"kv_sep": "=", "item_sep": ",", "exclude_keys": []},
    "job_logging": _QUIET,
    "hydra_logging": _QUIET,
    "verbose": False,
    "launcher._target_": "hydra_plugins.lmctl.ProcessLauncher",
    "sweeper._target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "sweeper.max_batch_size": None,
    "sweeper.params": None,
}
"""Hydra's settings in every verb; the others only describe the command or are texts of its help."""
_NAMES_HYDRA = re.compile(r"(^|[@./ ])hydra($|[@./:])")
"""A key, a place or an option in a list of defaults that belongs to Hydra."""
_PACKAGE_OF_HYDRA = re.compile(r"^\s*#\s*@package\s.*hydra", re.MULTILINE)
PLACES = {"run_dir": "runs/${name}", "cache_dir": None, "out": None}
"""Where a command writes, and the defaults: set on the command line only."""
OF_THE_COMMAND = ("name", "run_dir", "cache_dir", "resume", "stage", "stages", "trusted", "tracker")
"""Keys that are not taken from files: they belong to a command, or write, run or send from this machine."""
OF_A_SHELL = ("setup", "sbatch")
"""Keys of `runner=slurm` that become lines of a shell script."""
NO_TRACKER = "lmctl.tracker.none.NoTracker"


def is_token(text: str) -> bool:
    """Whether `text` contains an access token. The path of an existing file or folder is none."""
    return has_token(text) and not os.path.exists(path_of(text))


def reads_secret(text: str) -> bool:
    """Whether `text` interpolates an environment variable that is named like a secret or holds an access token, or
    computes which variable or resolver it interpolates."""
    for one in interpolations(text):
        if one.resolver is not None and one.is_computed and ("${" in one.resolver or "env" in one.resolver + text):
            return True
        if one.resolver == "oc.env" and (names_secret(one.argument) or has_token(os.environ.get(one.argument, ""))):
            return True
    return False


def read_from_environment(overrides: Overrides) -> dict[str, str]:
    """The values of environment variables that overrides interpolate, with what is written for each; without short
    values and paths, which are no secrets."""
    names = {one.argument for word in overrides for one in interpolations(word.text) if one.resolver == "oc.env"}
    values = {os.environ.get(name, ""): f"${{oc.env:{name}}}" for name in names}
    return {value: written for value, written in values.items() if len(value) >= 8 and "/" not in value}


def refuse_tokens(overrides: Overrides) -> None:
    """ConfigError if an override contains an access token: overrides are written to many files."""
    for override in overrides:
        key = f"{override.sign}{override.key}"
        if is_token(override.text) or is_token(key):
            raise ConfigError(
                f"the value of '{key}' looks like an access token, and overrides are recorded",
                "put it into the environment (HF_TOKEN), or log in with: hf auth login",
            )


def check_file(folder: Path, file: Path) -> None:
    """ConfigError if a config file below `folder`, of `--config-dir`, is more than data: if it lies elsewhere, sets
    what only a command line sets, or exceeds the limits of `core.yaml_files`."""
    if folder.resolve() not in file.resolve().parents:
        raise ConfigError(f"{file} is a link to {file.resolve()}, outside of {folder}", "copy the file")
    try:
        text = yaml_files.read(file)
        texts, tree = yaml_files.scalars(text), yaml_files.load(text)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not UTF-8 text, at byte offset {error.start:,}", "YAML is read as UTF-8: save it so"
        ) from None
    except YAMLError as error:  # not left to the parser that composes: it accepts more than this one
        raise ConfigError(yaml_files.refusal(file, error)) from None
    except ValueError as error:
        raise ConfigError(f"{file}: {error}, which no config needs") from None
    own = tree.get("hydra", {}) if isinstance(tree, dict) else {}
    launcher = own.get("launcher", {}) if isinstance(own, dict) and own.keys() <= {"launcher"} else None
    named = [one for one in [*file.relative_to(folder).with_suffix("").parts, *texts] if _NAMES_HYDRA.search(one)]
    is_allowed = isinstance(launcher, dict) and launcher.keys() <= set(OF_FILES) and named in ([], ["hydra"])
    if not is_allowed or _PACKAGE_OF_HYDRA.search(text):
        raise ConfigError(f"{file}: Hydra's own settings are not for files", "launchers are chosen on the command line")
    refuse_resolvers(str(file), texts)


def overrides_of_file(where: str, words: Any) -> Overrides:
    """The overrides in a list of words that a file holds; ConfigError, which begins with `where`, if it is no such
    list."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(
            f"{where} must be a list of settings", "e.g. [init_from=pretrain, mix=classify, optim.lr=5e-4]"
        )
    return Overrides.typed(words)


def refuse_recorded(where: str, overrides: Overrides, known: Collection[str]) -> None:
    """ConfigError if a file holds an override that only a command line may have; `known` are the verb's keys and
    groups."""
    for override in overrides:
        parts = override.key.split("@")
        if any(_top(part) not in known or _top(part) in OF_THE_COMMAND for part in parts):
            raise ConfigError(
                f"{where}: '{override.key}' is no setting that a file may have", "if it is yours, type it"
            )
    refuse_resolvers(where, overrides.render())


def _top(key: str) -> str:
    return key.replace("[", ".").partition(".")[0].partition("/")[0]


def audit(cfg: DictConfig, typed: Overrides) -> None:
    """ConfigError for what a composed config may not hold: packages to trust and settings of Hydra that are not of the
    command line (`typed`), code that Hydra would run, secrets, interpolations without end. Nothing is resolved."""
    tree = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False, enum_to_str=True))
    hydras = tree["hydra"]
    hydras["overrides"] = {}  # copies of the command line, whose settings are in the tree already
    hydras["job"].pop("override_dirname", None)
    _audit(tree, "")
    _audit_hydra(hydras, typed)
    trusted = tree.get("trusted") or []
    if trusted and ("trusted" not in typed or "${" in str(trusted)):
        raise ConfigError(
            "trusted: which packages may run is said on the command line, and not in a file",
            "if the code is yours, add trusted=[PACKAGE] there",
        )
    tracker = tree.get("tracker") or {"_target_": NO_TRACKER}
    if tracker != {"_target_": NO_TRACKER} and not any(_top(override.key) == "tracker" for override in typed):
        raise ConfigError(
            "tracker: where figures are sent is said on the command line, and not in a file",
            "add it there: tracker=...",
        )
    runner = tree.get("runner")
    for key in OF_A_SHELL:
        given = runner.get(key) if isinstance(runner, dict) else None
        if given and not any(f"{override.key}.".startswith(f"runner.{key}.") for override in typed):
            raise ConfigError(
                f"runner.{key}: what a job of a cluster runs besides is said on the command line, and not in a file",
                f"if it is yours, add it there: runner.{key}=...",
            )
    for key, default in PLACES.items():
        if tree.get(key, default) != default and key not in typed:
            raise ConfigError(
                f"{key}: where a command writes is said on the command line, and not in a file",
                f"add it there: {key}=...",
            )
    refuse_explosion({key: value for key, value in tree.items() if key != "hydra"})


def _audit(node: Any, path: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            where = f"{path}.{key}" if path else str(key)
            if path.startswith("hydra") and key == "_target_" and not _is_plugin(path, value):
                raise ConfigError(f"{where}={value} names code for Hydra to run, and is refused", _CODE_HINT)
            _audit(value, where)
    elif isinstance(node, list):
        for place, value in enumerate(node):
            _audit(value, f"{path}[{place}]")
    elif isinstance(node, str):
        if is_token(node):
            raise ConfigError(f"{path} holds what looks like an access token", "put it into the environment")
        if reads_secret(node):
            raise ConfigError(f"{path} reads a secret from the environment, and would record it: {node}")


_CODE_HINT = "lmctl's own components go into config groups; launchers and sweepers come as installed Hydra plugins"


def _is_plugin(path: str, target: Any) -> bool:
    return path.startswith(("hydra.launcher", "hydra.sweeper")) and str(target).startswith(PLUGINS)


def _audit_hydra(hydras: dict[str, Any], typed: Overrides) -> None:
    """ConfigError unless Hydra's settings are as shipped, or changed by the command line where it may."""
    changed = {_as_key(override) for override in typed if override.is_hydras()}
    for key, value in SHIPPED.items():
        node: Any = hydras
        for step in key.split("."):
            node = node.get(step) if isinstance(node, dict) else None
        if node != value and not any(f"hydra.{key}".startswith(own) for own in changed):
            raise _not_for_lmctl(f"hydra.{key}")
    if "hydra.launcher" not in changed:
        for name in hydras["launcher"]:
            if name not in (*OF_FILES, "_target_"):
                raise _not_for_lmctl(f"hydra.launcher.{name}")


def _as_key(override: Override) -> str:
    """`hydra.launcher` for every override that chooses or changes the launcher."""
    return ".".join(override.group.replace("/", ".").split(".")[:2])


def refuse_hydras(overrides: Overrides) -> None:
    """ConfigError for a typed setting of Hydra that is not for lmctl."""
    for override in overrides:
        if override.is_hydras() and not (override.key.startswith(TYPED) or override.key.endswith("_target_")):
            raise _not_for_lmctl(override.key)


def _not_for_lmctl(key: str) -> ConfigError:
    first, rest = re.match(r"([^./]*[./]?)(.*)", key).groups()  # type: ignore[union-attr]  # it matches anything
    name = re.split(r"[./]", rest)[0]
    close = None if key.startswith(TYPED) else nearest(name, [one[len("hydra.") :] for one in TYPED[::2]])
    if close:
        return ConfigError(f"{key} is no setting of Hydra; did you mean {first}{close}{rest[len(name) :]}?")
    return ConfigError(
        f"{key} is a setting of Hydra that lmctl leaves as it is",
        f"of Hydra, {', '.join(TYPED[::2])} can be set, on the command line",
    )
