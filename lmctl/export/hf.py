"""`format=hf`: a Hugging Face directory in another number format, with the code of lmctl's own architectures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.export.base import ExportFormat
from lmctl.model.artifact import GENERATOR

if TYPE_CHECKING:
    from lmctl.export.subject import Subject

KEPT = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.spm")
"""Files of a model directory: weights, configs, tokenizers. Neither pickles nor code."""

CARD, AUTHORS_CARD = "README.md", "README.original.md"
"""The model card, and that of the authors of a model from elsewhere, which ours does not replace."""


@dataclass(frozen=True)
class HuggingFace(ExportFormat):
    """Every file of the model directory, so that lmctl goes on from it as from the run: heads of further tasks, a
    discriminator's generator, what it was trained for. Weights are cast tensor by tensor."""

    dtypes: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "fp16")

    def refuse(self, subject: Subject) -> str | None:
        return None

    def write(self, subject: Subject, folder: Path) -> None:
        from lmctl.export.recurrent_code import add_code

        source = subject.folder([*KEPT, CARD])
        for file in (file for place in ("", GENERATOR) for pattern in KEPT for file in (source / place).glob(pattern)):
            target = folder / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            if file.suffix == ".safetensors":
                _cast(file, target, subject)
            elif file.name == "config.json":
                written = json.loads(file.read_text(encoding="utf-8-sig"))
                target.write_text(json.dumps(_described(written, subject), indent=2, ensure_ascii=False) + "\n")
            else:
                target.write_bytes(file.read_bytes())
        if subject.run is None and (source / CARD).is_file():
            (folder / AUTHORS_CARD).write_bytes((source / CARD).read_bytes())
        if subject.own_architecture:
            add_code(folder, subject.loaded.artifact.model_type)

    def runtime(self, subject: Subject) -> str:
        return "with_transformers"

    def usage(self, subject: Subject) -> tuple[str, str]:
        auto = subject.auto_class
        consent = ", trust_remote_code=True" if subject.own_architecture else ""
        return "python", (
            f"from transformers import AutoTokenizer, {auto}\n\n"
            'tokenizer = AutoTokenizer.from_pretrained(".")\n'
            f'model = {auto}.from_pretrained("."{consent})'
        )

    def arguments(self, subject: Subject) -> Mapping[str, str]:
        code = "yes" if subject.own_architecture else "no"
        return {"class": subject.auto_class, "below": subject.below, "code": code}


def _cast(file: Path, target: Path, subject: Subject) -> None:
    """A safetensors file with its floating-point tensors in the subject's dtype."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as opened:
        about, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    wanted = subject.torch_dtype
    cast = {name: one.to(wanted) if one.is_floating_point() else one for name, one in tensors.items()}
    save_file(cast, target, about)


def _described(config: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    """config.json with the dtype in which the weights are."""
    dtype = str(subject.torch_dtype).removeprefix("torch.")
    return {**{key: value for key, value in config.items() if key != "torch_dtype"}, "dtype": dtype}
