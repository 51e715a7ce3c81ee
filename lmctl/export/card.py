"""Model card of an export, README.md: use, training, figures and limits of the model."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmctl.config.saved import recorded_config
from lmctl.core.regular_files import read_json
from lmctl.core.run_summary import RunSummary
from lmctl.export.base import ExportFormat
from lmctl.export.subject import Subject
from lmctl.export.verify import Agreement
from lmctl.train import final_figures

PIPELINES = {"encoder": "fill-mask", "decoder": "text-generation", "seq2seq": "translation"}
"""By family, the hub's name for what a model does."""
LIBRARIES = {"hf": "transformers", "onnx": "onnx", "gguf": "gguf"}
"""By format, the hub's name for what loads it."""


def card(subject: Subject, format: ExportFormat, agreement: Agreement | None, licence: str | None) -> str:
    """Markdown with the hub's front matter."""
    parts = [_front(subject, format, licence), f"# {subject.name}", _what(subject)]
    code, example = format.usage(subject)
    parts += ["## How to use it", f"In the directory of these files, without lmctl:\n\n```{code}\n{example}\n```"]
    if subject.own_architecture and format.name == "hf":
        parts.append(
            "transformers has no such architecture, so its code lies beside the weights. `trust_remote_code=True` runs "
            "it: read it before. lmctl loads the directory without it."
        )
    if subject.run is not None:
        parts += _training(subject)
    parts += ["## Limits", _limits(subject), "## These files", _files(subject, agreement), _licence(licence)]
    return "\n\n".join(parts) + "\n"


def _front(subject: Subject, format: ExportFormat, licence: str | None) -> str:
    kind = "text-classification" if subject.loaded.classifies else PIPELINES[subject.loaded.family]
    lines = [f"library_name: {LIBRARIES[format.name]}", f"pipeline_tag: {kind}", "tags: [lmctl]"]
    lines += [f"license: {licence}"] if licence is not None else []
    return "\n".join(["---", *lines, "---"])


def _what(subject: Subject) -> str:
    model = subject.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    families = {"encoder": "masked language model", "decoder": "causal language model", "seq2seq": "encoder-decoder"}
    what = "classifier" if subject.loaded.classifies else families[subject.loaded.family]
    labels = f" Its labels: {', '.join(list(subject.loaded.labels)[:20])}." if subject.loaded.labels else ""
    limit = subject.loaded.positions
    reach = "Rows may have any length." if limit is None else f"It reads at most {limit:,} pieces at a time."
    return f"A {what}, `{type(model).__name__}` with {parameters:,} parameters.{labels} {reach}"


def _training(subject: Subject) -> Iterator[str]:
    """What the run recorded of its data, its length and its figures."""
    assert subject.run is not None
    summary, environment = RunSummary.of(subject.run).written, read_json(subject.run.environment)
    yield "## Training"
    yield "\n".join(f"- `{task}`: {data}" for task, data in _data(subject))
    if not {"steps", "tokens", "valid_rows", "valid_metrics", "baseline"} <= summary.keys():
        yield "The run is not finished, so there are no figures of it."
        return
    typed = environment.get("command") if isinstance(environment, dict) else None
    if isinstance(typed, list):
        yield f"{_length(summary)} Trained by:\n\n```sh\n{shlex.join(map(str, typed))}\n```"
    yield "## Figures"
    rows = " and ".join(f"{count:,} rows of `{task}`" for task, count in summary["valid_rows"].items())
    yield (
        f"Measured by lmctl at the end of training, on {rows} that were held out of training. The intervals say how "
        "much a figure would differ on other rows like these. The baseline is the best answer that does not look at "
        'the text; "unclear" means that it lies within the interval.'
    )
    yield final_figures.table(dict(summary))


def _length(summary: Mapping[str, Any]) -> str:
    return f"{summary['steps']:,} steps on {summary['tokens']:,} tokens."


def _data(subject: Subject) -> Iterator[tuple[str, str]]:
    """By task: the objective and the source. Of paths only the last part, because the rest is about a machine."""
    assert subject.run is not None
    for name, task in recorded_config(subject.run).mix.tasks.items():
        objective, source = (str(task[part].get("_target_", "")).rpartition(".")[2] for part in ("objective", "data"))
        places = [value for key, value in task.data.items() if key in ("path", "source", "target") and value]
        paths = [str(path) for place in places for path in ([place] if isinstance(place, str) else list(place))]
        yield name, f"{objective} on {source}" + (f" ({', '.join(Path(path).name for path in paths)})" if paths else "")


def _licence(licence: str | None) -> str:
    return "Licence: " + (licence or "none is stated (`lmctl export license=...` states one)") + "."


def _limits(subject: Subject) -> str:
    return (
        "It has seen the data named above and nothing else: on other kinds of text it is worse than its figures, and "
        "what is wrong or unfair in the data is in its answers. Nobody has checked it for any use."
        if subject.run is not None
        else "Exported from another model directory: what its authors say of its data and limits holds."
    )


def _files(subject: Subject, agreement: Agreement | None) -> str:
    numbers = subject.quantize_name or subject.dtype
    proof = "Not verified." if agreement is None else f"{agreement.line()[0].upper()}{agreement.line()[1:]}."
    return f"Weights in {numbers}, written by `lmctl export`. {proof} Checksums are in `export.json`."
