"""`tokenizer=pretrained`: the tokenizer of a run, of a Hugging Face model directory or of a hub model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError
from lmctl.core.files import means_a_place, path_of
from lmctl.core.places import Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""One of these is in every directory that has a tokenizer."""


@dataclass(frozen=True)
class Pretrained:
    """A tokenizer that exists already; it is used as it is, and no code that comes with it is run."""

    path: Place

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a run directory, a model directory or a hub id")

    def identity(self) -> Mapping[str, Any]:
        """The contents of its files; of a hub model the id."""
        folder = self._folder()
        if folder is None:
            return {"kind": "Pretrained", "hub": self.path}
        files = [path for path in folder.iterdir() if path.is_file() and _belongs(path.name)]
        return {"kind": "Pretrained", "files": {path.name: _sha256(path) for path in files}}

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Load it; `sentences` are left alone. ConfigError if there is none, or only one in Python code."""
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        folder = self._folder()
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder or self.path), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"tokenizer.path={self.path} cannot be loaded: {reason}",
                "give a run directory, a directory with tokenizer.json, or the id of a model on the hub",
            ) from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ConfigError(
                f"the tokenizer {self.path} has no fast version (tokenizer.json), which lmctl needs",
                "convert it with transformers, or train one: tokenizer=wordpiece",
            )
        return tokenizer

    def _folder(self) -> Path | None:
        """The local directory that holds the files, or None if `path` is a hub id."""
        place = path_of(self.path)
        if not place.exists():
            if means_a_place(self.path):
                raise ConfigError(f"tokenizer.path={self.path} does not exist")
            return None
        for folder in (place, place / "model", place / "tokenizer"):
            if any((folder / name).is_file() for name in _FILES):
                return folder
        raise ConfigError(
            f"tokenizer.path={self.path} has no tokenizer, neither in itself nor in model/ or tokenizer/",
            f"one of these files is looked for: {', '.join(_FILES)}",
        )


def _belongs(name: str) -> bool:
    return name in (*_FILES, "merges.txt") or ("token" in name and name.endswith(".json"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
