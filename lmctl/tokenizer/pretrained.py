"""`tokenizer=pretrained`: the tokenizer of a run, of a Hugging Face model directory or of a hub model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError
from lmctl.core.files import is_local_path, path_of
from lmctl.core.model_files import TOKENIZER_FILES, tokenizer_folder
from lmctl.core.paths import Place
from lmctl.core.pretrained_files import tokenizer_of
from lmctl.tokenizer.base import TokenizerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Pretrained(TokenizerSpec):
    """An existing tokenizer, loaded unchanged; Python code that comes with it is never run."""

    path: Place

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a run directory, a model directory or a hub id")

    def identity(self) -> Mapping[str, Any]:
        """Hashes of its files; of a hub model the id."""
        folder = self._folder()
        if folder is None:
            return {"kind": "Pretrained", "hub": self.path}
        files = [path for path in folder.iterdir() if path.is_file() and _belongs(path.name)]
        return {"kind": "Pretrained", "files": {path.name: _sha256(path) for path in files}}

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Load it; `sentences` are not read. ConfigError if there is none, or only one that needs Python code."""
        from transformers import PreTrainedTokenizerFast

        tokenizer = tokenizer_of(f"tokenizer.path={self.path}", str(self._folder() or self.path))
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ConfigError(
                f"the tokenizer {self.path} has no fast version (tokenizer.json), which lmctl needs",
                "convert it with transformers, or train one: tokenizer=wordpiece",
            )
        return tokenizer

    def _folder(self) -> Path | None:
        """The local directory with the files, or None if `path` is a hub id."""
        place = path_of(self.path)
        if not place.exists():
            if is_local_path(self.path):
                raise ConfigError(f"tokenizer.path={self.path} does not exist")
            return None
        return tokenizer_folder(f"tokenizer.path={self.path}", place)


def _belongs(name: str) -> bool:
    return name in (*TOKENIZER_FILES, "merges.txt") or ("token" in name and name.endswith(".json"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
