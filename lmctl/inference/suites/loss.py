"""`suite=loss`: the validation loss of a run's own task, computed as in training: its objective, its rows, fixed masks.

Training prints it for `eval.rows` rows at the end; here it is computed for all rows, or for other data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lmctl.core.batch import Document
from lmctl.core.errors import ConfigError
from lmctl.core.token_store import TokenStore, add_labels, write_store
from lmctl.inference.heads import network_of
from lmctl.inference.suites.job import Figures, SuiteJob, nothing
from lmctl.objective.base import Material
from lmctl.parallel.processes import Processes
from lmctl.precision.fp32 import Fp32
from lmctl.tokenizer.vocabulary import vocabulary
from lmctl.train.class_labels import Labels
from lmctl.train.learner import Learner
from lmctl.train.validation import Validation


def evaluate(job: SuiteJob) -> Figures:
    """`loss` and the objective's other metrics, with their names in training."""
    if job.own is None or job.task is None:
        raise ConfigError(
            "suite=loss is what a run of lmctl was trained for, and this model is not a run's",
            "give a run directory, or another suite",
        )
    objective, task = job.own.objective, job.task
    with TemporaryDirectory() as folder:
        store = _store(job, Path(folder))
        pieces, family = vocabulary(job.loaded.tokenizer), job.loaded.family
        network = network_of(job.loaded, objective.heads(task, store, pieces))
        examples = objective.examples(Material(task, store, pieces, family, job.own.seq_len, job.config.batch))
        alone, device = Processes(job.loaded.device.type == "cpu"), job.loaded.device
        precision = job.loaded.numerics.precision or Fp32()
        validation = Validation({task: examples}, {task: objective}, None, job.config.batch, alone)
        figures = validation.scores(Learner(network, {task: objective}, precision, device))
    named: Figures = {name.removeprefix(f"{task}/"): value for name, value in figures.items()}
    return {**named, "rows": len(examples), "tokens": len(store)}


def _store(job: SuiteJob, folder: Path) -> TokenStore:
    assert job.own is not None
    kind, note = job.own.objective.label_kind, (job.loaded.tasks or {})[job.task or ""]
    labels = Labels(kind, note["labels"]) if kind is not None else None

    def documents() -> Iterator[Document]:
        for row in job.rows():
            if labels is not None:
                labels.add(row)
            yield row.texts

    write_store(folder, documents(), job.loaded.tokenizer.backend_tokenizer)
    if labels is not None:
        add_labels(folder, *labels.arrays())
    store = TokenStore.open(folder)
    if not len(store):
        raise nothing("loss")
    return store
