"""Base class of the group `export`: the file formats of `lmctl export`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.component import Component

if TYPE_CHECKING:
    import numpy as np

    from lmctl.export.subject import Subject


DTYPES = ("fp32", "bf16", "fp16", "q8_0")
"""Number formats of weights; q8_0 is llama.cpp's: int8 with a scale per 32 values."""


class ExportFormat(Component):
    """Group `export`: how a finished model is written, and by which foreign runtime the files are read back."""

    dtypes: ClassVar[tuple[str, ...]]
    """Number formats of weights that it has."""
    quantizes: ClassVar[tuple[str, ...]] = ()
    """Options of `quantize` that it can store."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Optional packages that write the files and read them back."""

    @property
    def imports(self) -> tuple[str, ...]:
        return self.libraries

    @property
    def name(self) -> str:
        """Name of the option in the config."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def refuse(self, subject: Subject) -> str | None:
        """Why the format has no place for this model, with the nearest one that has, or None."""

    @abstractmethod
    def write(self, subject: Subject, folder: Path) -> None:
        """Write the model's files, the tokenizer's among them, into the empty directory `folder`."""

    @abstractmethod
    def usage(self, subject: Subject) -> tuple[str, str]:
        """Code that uses the files of the working directory without lmctl, for the model card: its language, itself."""

    @abstractmethod
    def runtime(self, subject: Subject) -> str:
        """The module of `lmctl.export.foreign` whose process reads the files back."""

    def arguments(self, subject: Subject) -> Mapping[str, str]:
        """What that process has to be told besides the directory."""
        return {}

    def logits(self, subject: Subject, answer: np.ndarray) -> np.ndarray:
        """The logits in what that process answers."""
        return answer
