"""`format=gguf`: one file for llama.cpp and the programs built on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lmctl.export.base import ExportFormat

if TYPE_CHECKING:
    import numpy as np

    from lmctl.export.subject import Subject


@dataclass(frozen=True)
class Gguf(ExportFormat):
    """Llama and GPT-2 decoders, and BERT and ModernBERT without heads, as encoders for embeddings. Matrices have the
    dtype, vectors stay float32. The tokenizer is in the file: what llama.cpp has of it, and the whole as Hugging Face
    has it (`tokenizer.huggingface.json`)."""

    dtypes: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "fp16", "q8_0")
    libraries: ClassVar[tuple[str, ...]] = ("gguf",)

    def refuse(self, subject: Subject) -> str | None:
        from lmctl.export.gguf_layout import refuse

        return refuse(subject)

    def write(self, subject: Subject, folder: Path) -> None:
        from lmctl.export.gguf_file import write

        write(subject, folder / self._file(subject))

    def runtime(self, subject: Subject) -> str:
        return "with_gguf" if subject.loaded.family == "encoder" else "with_transformers"

    def arguments(self, subject: Subject) -> Mapping[str, str]:
        return {"class": subject.auto_class, "gguf": self._file(subject)}

    def logits(self, subject: Subject, answer: np.ndarray) -> np.ndarray:
        """An encoder's file has no heads, so the model's own one reads its hidden states."""
        if subject.loaded.family != "encoder":
            return answer
        import torch

        model, hidden = subject.model, torch.from_numpy(answer)
        with torch.inference_mode():
            is_bert = subject.loaded.artifact.model_type == "bert"
            logits = model.cls.predictions(hidden) if is_bert else model.decoder(model.head(hidden))
        return logits.numpy()

    def usage(self, subject: Subject) -> tuple[str, str]:
        file = self._file(subject)
        if subject.loaded.family == "encoder":
            return "sh", f'llama-embedding -m {file} --pooling mean -p "The cat sat on the mat."'
        from lmctl.export.gguf_file import begins_with_a_space

        begins = begins_with_a_space(subject.loaded.tokenizer)
        why = "  # with a space before the text, as in training: llama.cpp adds none" if begins else ""
        return "sh", f'llama-completion -m {file} -p "{" " if begins else ""}The cat" -n 40{why}'

    def _file(self, subject: Subject) -> str:
        kind = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}[subject.dtype]
        return f"{subject.name}-{kind}.gguf"
