"""`lmctl export`: write a finished model for other programs (Hugging Face, ONNX, GGUF)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from lmctl.config.schema import one_of
from lmctl.config.table import MISSING, group, key
from lmctl.config.use_schema import MODEL_PATH
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of, refuse_folder, write_json, write_text
from lmctl.core.paths import Paths, Place, run_of
from lmctl.export.base import DTYPES, ExportFormat
from lmctl.precision.base import Quantization

RECORD = "export.json"
"""The file by which an export is known."""


@dataclass(frozen=True)
class ExportConfig:
    """Root config of `lmctl export`."""

    export: ExportFormat = group("hf", "file format, and the programs that read it; typed format=", typed="format")
    quantize: Optional[Quantization] = group(None, "weights of a finished model in fewer bits")
    model_path: Place = key(MISSING, MODEL_PATH)
    dtype: Optional[str] = key(
        None, f"number format of weights: {', '.join(DTYPES)} (GGUF only); null: as they are saved", ("torch_dtype",)
    )
    out: Optional[Place] = key(
        None, "directory to write; null: export/FORMAT in the run, or NAME-FORMAT here", ("output", "output_dir")
    )
    overwrite: bool = key(False, "whether an earlier export at `out` is replaced")
    verify: bool = key(True, "read the files back with the foreign runtime, compare logits, keep nothing that is wrong")
    bench: bool = key(False, "measure size, latency, speed and quality beside the model as it is")
    license: Optional[str] = key(None, "licence of the model for its card: apache-2.0, mit, ...", ("licence",))
    push: Optional[str] = key(None, "upload to the Hugging Face hub as USER/NAME", ("push_to_hub", "hub_model_id"))
    private: bool = key(True, "push: whether only you can see it", ("hub_private_repo",))

    def __post_init__(self) -> None:
        if self.dtype is not None:
            one_of(DTYPES, dtype=self.dtype)
        if self.push is not None and self.push.count("/") != 1:
            raise ValueError(f"push must be USER/NAME, got {self.push!r}")


class Export(Verb[ExportConfig]):
    purpose = "Write a finished model for other programs, and prove that they compute the same."
    examples = (
        "lmctl export model_path=runs/mine dtype=bf16",
        "lmctl export model_path=runs/mine format=onnx quantize=int8_dynamic bench=true",
        "lmctl export model_path=runs/mine format=gguf dtype=q8_0",
    )
    often = (
        "model_path", "export", "dtype", "quantize", "out", "overwrite", "verify", "bench", "push", "license",
    )  # fmt: skip
    schema = ExportConfig
    words = ("model_path",)

    def run(self, config: ExportConfig) -> None:
        """Write, verify, measure and upload, in this order; what fails leaves nothing at `out`."""
        from lmctl.export.subject import check_dtype
        from lmctl.inference.load import model_folder
        from lmctl.train.display import Display, print_lines, quiet_libraries

        check_dtype(config.export, config.dtype, config.quantize)
        model_folder(config.model_path)  # refuses a wrong path before slow imports
        out = place_of(config)
        refuse_existing(out, config.overwrite)
        quiet_libraries()
        if config.push is not None:
            from lmctl.export import push

            push.check(config.push, config.private)
        display = Display()
        with display.watching():
            lines = self.written(config, out)
        print_lines(lines)
        if config.push is not None:
            print(f"uploaded to {push.push(out, config.push, config.private)}")

    def written(self, config: ExportConfig, out: Path) -> list[str]:
        """Write the directory `out`, whole or not at all; returns lines for people."""
        from lmctl.core.progress import stage
        from lmctl.export import bench, card, verify
        from lmctl.export.record import record
        from lmctl.export.subject import subject_of
        from lmctl.model.artifact.writer import replace

        with stage("loading the model"):
            subject = subject_of(config.model_path, config.export, config.dtype, config.quantize)
        lines: list[str] = []

        def fill(folder: Path) -> None:
            folder.mkdir(parents=True)
            with stage(f"writing {config.export.name}"):
                config.export.write(subject, folder)
            agreement = None
            if config.verify:
                with stage("verifying"):
                    agreement = verify.verify(subject, config.export, folder)
                lines.append(agreement.line())
            write_text(folder / "README.md", card.card(subject, config.export, agreement, config.license))
            write_json(folder / RECORD, record(folder, subject, config.export, agreement))
            if config.bench:
                with stage("measuring"):
                    forms.extend(bench.bench(subject, config.export, folder, out.name, held_out(config)))

        forms: list[bench.Form] = []
        out.parent.mkdir(parents=True, exist_ok=True)
        replace(out, fill)
        lines.insert(0, f"{out}: {', '.join(sorted(file.name for file in out.iterdir()))}")
        if forms:
            lines += [*bench.lines(bench.save(forms, out.parent)), f"saved in {out.parent / 'bench.md'} and bench.json"]
        return lines


def place_of(config: ExportConfig) -> Path:
    """`out`, or export/FORM in the run of the model, or NAME-FORM in the working directory."""
    from lmctl.export.subject import option_name

    if config.out is not None:
        return Path(config.out)
    parts = [config.export.name, config.dtype, option_name(config.quantize) if config.quantize is not None else None]
    form = "-".join(part for part in parts if part is not None)
    place = path_of(config.model_path)
    run = Paths(run_of(place))
    if run.config.is_file():
        return run.root / "export" / (form if place == run.root else f"{place.name}-{form}")
    return Path(f"{place.name}-{form}")


def refuse_existing(out: Path, overwrite: bool) -> None:
    """ConfigError if there is something at `out`, unless it is an earlier export that may be replaced, or if no
    directory can be there."""
    if not os.path.lexists(out):
        refuse_folder(out, "out")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECORD).is_file():
        raise ConfigError(f"out={out} is there, and is no earlier export", "choose another out=...")
    if not overwrite:
        raise ConfigError(f"out={out} is there already", "overwrite=true replaces it; or choose another out=...")


def held_out(config: ExportConfig) -> Iterator[str]:
    """Texts that the model did not learn from: its run's held-out rows, or those of the text that comes with lmctl."""
    from lmctl.core.batch import whole_text
    from lmctl.data.pydocs import PyDocs
    from lmctl.inference.trained_on import own_tasks

    own = own_tasks(config.model_path, (), needed=False)
    sources = [task.source for task in own.values()] or [PyDocs()]
    for source in sources:
        for row in source.rows("valid"):
            yield whole_text(row.texts)
