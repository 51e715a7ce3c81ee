"""Libraries that few settings need: `pip install 'lmctl[EXTRA]'` brings them, and who lacks one is told so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from lmctl.core.errors import ConfigError

EXTRAS: Mapping[str, str] = {"matplotlib": "plot", "peft": "lora", "sacrebleu": "bleu"}
"""Library -> the extra that brings it, as pyproject.toml has them."""


def is_installed(library: str) -> bool:
    """Whether a top-level package can be found; it is not imported."""
    return find_spec(library) is not None


def install(library: str) -> str:
    """What to type to have it."""
    return f"pip install 'lmctl[{EXTRAS[library]}]'" if library in EXTRAS else f"pip install {library}"


def require(what: str, libraries: Iterable[str]) -> None:
    """ConfigError if one of the libraries that `what` needs is not there."""
    for library in libraries:
        if not is_installed(library):
            raise ConfigError(f"{what} needs {library}, which is not installed", install(library))
