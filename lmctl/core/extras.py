"""Optional dependencies: `pip install 'lmctl[EXTRA]'` installs them; a setting that needs a missing one is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from lmctl.core.errors import ConfigError

TRACKERS: Mapping[str, str] = {name: name for name in ("tensorboard", "trackio", "wandb", "mlflow")}
"""Extras that `all` leaves out: each brings a server, or is for one."""
EXTRAS: Mapping[str, str] = {
    "matplotlib": "plot",
    "numba": "fast",
    "peft": "lora",
    "sacrebleu": "bleu",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "gguf": "gguf",
    "submitit": "slurm",
    "optuna": "search",
    **TRACKERS,
}
"""Library -> the extra in pyproject.toml that installs it."""


def is_installed(library: str) -> bool:
    """Whether a top-level package is installed; it is not imported."""
    return find_spec(library) is not None


def install(library: str) -> str:
    """The command that installs it."""
    return f"pip install 'lmctl[{EXTRAS[library]}]'" if library in EXTRAS else f"pip install {library}"


def require(what: str, libraries: Iterable[str]) -> None:
    """ConfigError if a library that `what` needs is not installed."""
    for library in libraries:
        if not is_installed(library):
            raise ConfigError(f"{what} needs {library}, which is not installed", install(library))
