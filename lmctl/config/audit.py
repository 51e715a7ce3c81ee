"""Security audit of a config: refuse code that Hydra would run, and secrets that the run's record would keep.

Hydra itself calls what `hydra.callbacks`, log handlers, launchers and sweepers name, before any code of ours.
"""

from __future__ import annotations

import os
import re
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lmctl.config.overrides import Overrides
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.", "optuna.samplers.")
"""Packages in which Hydra may find launchers and sweepers: installed plugins. (Optuna's sweeper names its sampler.)"""
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "colorlog.ColoredFormatter")
TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16})\b")
DASHED = re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")
"""Tokens that may contain dashes, as names of files do: recognised by a long part without dashes."""
RANDOM = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}")
VARIABLE = re.compile(r"oc\.env:\s*([^,}\s]+)")
SECRET = re.compile(
    r"(^|_)(TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?)(_|$)|API_?KEYS?(_|$)|ACCESS_?KEY", re.IGNORECASE
)
HARMLESS = re.compile(r"_(DIR|DIRS|PATH|PATHS|FILE|FOLDER|CACHE|ROOT|HOME|SIZE|COUNT|LENGTH|LIMIT)$", re.IGNORECASE)
"""Suffixes of environment variables that hold a place or a size, no secret."""


def is_token(text: str) -> bool:
    """Whether `text` contains an access token. The path of an existing file or folder is none."""
    dashed = any(RANDOM.search(match[0].removeprefix("sk-")) for match in DASHED.finditer(text))
    return (dashed or TOKEN.search(text) is not None) and not os.path.exists(path_of(text))


def reads_secret(text: str) -> bool:
    """Whether `text` interpolates an environment variable that is named like a secret."""
    return any(SECRET.search(name) and not HARMLESS.search(name) for name in VARIABLE.findall(text))


def refuse_tokens(overrides: Overrides) -> None:
    """ConfigError if an override contains an access token: overrides are written to many files."""
    for override in overrides:
        key = f"{override.sign}{override.key}"
        if is_token(override.text) or is_token(key):
            raise ConfigError(
                f"the value of '{key}' looks like an access token, and overrides are recorded",
                "put it into the environment (HF_TOKEN), or log in with: hf auth login",
            )


def audit(cfg: DictConfig) -> None:
    """ConfigError for code that Hydra itself would call, and for secrets."""
    tree = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    tree["hydra"]["overrides"] = {}  # copies of the command line, whose settings are in the tree already
    tree["hydra"]["job"].pop("override_dirname", None)
    _audit(tree, "")


def _audit(node: Any, path: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            where = f"{path}.{key}" if path else str(key)
            if path.startswith("hydra") and _names_code(path, str(key), value):
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


def _names_code(path: str, key: str, value: Any) -> bool:
    if key == "_target_":
        return path.startswith("hydra.callbacks") or not str(value).startswith(PLUGINS)
    if path.startswith(("hydra.job_logging", "hydra.hydra_logging")):
        return key in ("()", "class", "factory") and value not in HANDLERS
    return False
