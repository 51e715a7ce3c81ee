"""`lmctl predict`: label new texts with a model that was fine-tuned."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TextIO

from lmctl.config.groups import Run
from lmctl.config.schema import FORMATS, one_of, positive
from lmctl.config.table import MISSING, key, same
from lmctl.config.use_schema import BATCH, MODEL_PATH
from lmctl.config.verb import Verb
from lmctl.core.errors import DataError
from lmctl.core.files import whole
from lmctl.core.json_lines import encodable, line_of
from lmctl.core.paths import Paths, Place, ResultFile
from lmctl.core.progress import stage
from lmctl.runner.base import Runner

if TYPE_CHECKING:
    from lmctl.data.base import Source
    from lmctl.inference.class_answers import Answer
    from lmctl.inference.new_rows import NewRow

SEPARATOR = ","
"""Separator of several labels of one row, as `data.label` reads them."""
INPUTS = ("auto", "table", "jsonl", "lines")


@dataclass(frozen=True)
class PredictConfig:
    """Root config of `lmctl predict`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    file: Optional[Place] = key(None, "csv, tsv, parquet, jsonl or text file, or a pattern; null or -: standard input")
    task: Optional[str] = key(None, "which of the model's own tasks labels; null: the only one that can")
    text: Optional[str] = key(None, "column of the text; null: the one that the run was trained on, or text")
    text_b: Optional[str] = key(
        "auto", "column of a pair's second text; null: none; auto: the run's, or text_b where there is one"
    )
    input: str = key(
        "auto", "table, jsonl or lines (pairs: a<TAB>b); auto: by the file's name or the first line, such as a header"
    )
    on_bad_row: str = key("error", "error: end at the first bad row; skip: give it an empty answer and go on")
    probabilities: bool = key(False, "text, csv, tsv: a column for the probability of every class (json has them all)")
    format: str = key(
        "text",
        "text (label<TAB>probability<TAB>text), csv or tsv (the input's columns, and label and probability), or json "
        "(one object per line with every field)",
    )
    out: Optional[ResultFile] = key(None, "write to this file, whole or not at all; null: standard output")
    batch: int = key(32, "rows at a time; from standard input an answer comes at the latest after so many", BATCH)
    seq_len: Optional[int] = key(None, "positions per row; null: as in training, or what the model takes, at most 1024")
    runner: Runner = same(Run, "runner")
    trusted: list[str] = key(list, "further packages whose classes a _target_ may name")

    def __post_init__(self) -> None:
        one_of(INPUTS, input=self.input)
        one_of(("error", "skip"), on_bad_row=self.on_bad_row)
        one_of((*FORMATS, "csv", "tsv"), format=self.format)
        positive(batch=self.batch)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")


class Predict(Verb[PredictConfig]):
    purpose = "Label new texts, pairs or rows: classes with their probabilities, or numbers, row for row."
    examples = (
        "lmctl predict model_path=runs/tuned file=new.csv text=review format=csv out=labelled.csv",
        "lmctl predict model_path=runs/tuned format=json < lines.txt",
        "lmctl predict model_path=runs/multitask task=topics file=new.jsonl on_bad_row=skip",
    )
    often = (
        "model_path", "file", "text", "text_b", "format", "out", "task", "on_bad_row", "batch",
    )  # fmt: skip
    schema = PredictConfig
    words = ("model_path", "file")

    def run(self, config: PredictConfig) -> None:
        """Write one prediction for every row of the input, in order; rows are streamed."""
        from lmctl.config.build import prefixes
        from lmctl.inference.input_lines import EXAMPLE, is_standard_input, placed
        from lmctl.inference.load import load, model_folder
        from lmctl.inference.new_rows import NewRows, files

        # Errors in the command are reported before slow imports.
        model_folder(config.model_path)
        stream = placed(None, example=EXAMPLE) if is_standard_input(config.file) else None
        if stream is None:
            files(str(config.file))

        from lmctl.inference.class_answers import answers, chosen_task, names_of
        from lmctl.inference.heads import classifier_of
        from lmctl.inference.length_batches import POOL
        from lmctl.inference.progress import inputs_done
        from lmctl.train.display import Display, quiet_libraries

        quiet_libraries()
        display = Display()
        say = display.say
        loaded = load(config.model_path, config.runner)
        task = chosen_task(loaded, config.task)
        classifier = classifier_of(loaded, task)
        learnt = _training_source(config.model_path, task, prefixes(config.trusted))
        skip = config.on_bad_row == "skip"
        rows = NewRows(config.file, config.input, config.text, config.text_b, skip, learnt, stream, say)
        length, pool = loaded.row(config.seq_len), POOL if stream is None else 1
        with display.watching(), stage("counting rows"):
            total = rows.count()
        with inputs_done(display, "labelling", total, "rows", config.out is not None), _output(config.out) as handle:
            writer = WRITERS[config.format](handle, task, names_of(classifier) if config.probabilities else [])
            count, bad, first = _write_all(answers(classifier, iter(rows), config.batch, length, pool), writer)
            if bad and bad == count:
                raise DataError(f"all {count:,} rows are bad; the first: {first}")
        end = f"; written to {config.out}" if config.out else ""
        say(
            f"{count:,} row{'s' * (count != 1)}"
            + (f", {bad:,} of them bad and without an answer; the first: {first}" if bad else "")
            + end
        )


def _training_source(model_path: str, task: str | None, trusted: tuple[str, ...]) -> Source | None:
    """The source that the model was trained on for `task`, if it is from a run."""
    from lmctl.inference.trained_on import own_tasks

    folder = Path(model_path)
    root = folder.parent if folder == Paths(folder.parent).model else folder
    own = own_tasks(str(root), trusted, needed=False).get(task or "")
    return None if own is None else own.source


@contextmanager
def _output(out: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that replaces `out` atomically when complete."""
    if out is None:
        yield sys.stdout
        return
    with whole(Path(out)) as handle:
        yield handle


def _write_all(found: Iterator[tuple[NewRow, Answer | None]], writer: Writer) -> tuple[int, int, str]:
    """Number of rows, number of bad rows, and the problem of the first bad one."""
    count, bad, first = 0, 0, ""
    for count, (row, answer) in enumerate(found, start=1):
        if row.wrong:
            bad, first = bad + 1, first or row.wrong
        writer.write(count, row, answer)
    writer.close()
    return count, bad, first


class Writer:
    """Writes predictions in one format, row by row."""

    def __init__(self, handle: TextIO, task: str | None, classes: list[str]) -> None:
        self.handle, self.task, self.classes = handle, task, classes

    def write(self, number: int, row: NewRow, answer: Answer | None) -> None:
        """Write the prediction for row `number`, counted from 1; None if the row is bad."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish after the last row."""

    def line(self, text: str) -> None:
        print(text, file=self.handle, flush=True)

    def shares(self, answer: Answer | None, digits: str) -> list[str]:
        """Probabilities of the requested classes."""
        return ["" if answer is None else format(answer.probabilities[name], digits) for name in self.classes]


class Lines(Writer):
    """Tab-separated label, probability and texts, without a header, so that `paste` and `cut` work line by line."""

    def write(self, number: int, row: NewRow, answer: Answer | None) -> None:
        cells = [*label_cells(answer, ".4f"), *self.shares(answer, ".4f"), *(row.texts or [""])]
        self.line("\t".join(map(flat, cells)))


class Json(Writer):
    """One JSON object per row, with every field."""

    def write(self, number: int, row: NewRow, answer: Answer | None) -> None:
        record: dict[str, Any] = {"row": number, "task": self.task, "label": None, "probability": None}
        record |= {"probabilities": {}} if answer is None else answer._asdict()
        self.line(line_of(record | {"texts": row.texts, "input": row.record, "error": row.wrong or None}))


class Csv(Writer):
    """The columns of the input, then label and probability; equal column names do not hide each other."""

    names: list[str] | None = None
    """The columns of the input, from its first row that has any."""

    def __init__(self, handle: TextIO, task: str | None, classes: list[str]) -> None:
        super().__init__(handle, task, classes)
        self.waiting: list[list[str]] = []
        """Bad rows before the first row with columns."""

    def write(self, number: int, row: NewRow, answer: Answer | None) -> None:
        ours = [*label_cells(answer, ""), *self.shares(answer, "")]
        record = {str(name): value for name, value in row.record.items()}
        if self.names is None and not record:
            self.waiting.append(ours)
            return
        names = self._begin(list(record)) if self.names is None else self.names
        if further := [name for name in record if name not in names]:
            raise DataError(
                f"{row.where}: has a column {further[0]!r} that the first row has not",
                "format=json keeps the columns of every row",
            )
        self.cells([*(cell(record.get(name)) for name in names), *ours])
        self.handle.flush()

    def close(self) -> None:
        if self.names is None and self.waiting:
            self._begin([])

    def _begin(self, names: list[str]) -> list[str]:
        self.names = names
        ours = ["label", "probability", *(f"probability_{name}" for name in self.classes)]
        self.cells([*names, *(f"predicted_{name}" if name in names else name for name in ours)])
        for row in self.waiting:
            self.cells(["" for _ in names] + row)
        return names

    def cells(self, cells: list[str]) -> None:
        """Write the cells of one row."""
        csv.writer(self.handle, lineterminator="\n").writerow(map(encodable, cells))


class Tsv(Csv):
    """As Csv, separated by tabs; no quoting, as `data=table` reads such files."""

    def cells(self, cells: list[str]) -> None:
        self.line("\t".join(map(flat, cells)))


WRITERS: dict[str, type[Writer]] = {"text": Lines, "json": Json, "csv": Csv, "tsv": Tsv}


def label_cells(answer: Answer | None, digits: str) -> list[str]:
    """Label and probability as two cells; several labels are separated by commas."""
    if answer is None:
        return ["", ""]
    label, probability = answer.label, answer.probability
    if isinstance(label, list):
        each = probability if isinstance(probability, list) else []
        return [SEPARATOR.join(label), SEPARATOR.join(format(value, digits) for value in each)]
    text = format(label, digits) if isinstance(label, float) else label
    return [text, format(probability, digits) if isinstance(probability, float) else ""]


def cell(value: Any) -> str:
    """A value of an input column as text: strings unchanged, null as nothing, others as JSON."""
    if isinstance(value, str):
        return value
    text = line_of(value)
    return "" if text == "null" else text if isinstance(value, list | dict) else text.strip('"')


def flat(text: str) -> str:
    """`text` with tabs and line breaks replaced."""
    return " ".join(encodable(text).split())
