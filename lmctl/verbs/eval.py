"""`lmctl eval`: measure how good a model is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lmctl.config.use_schema import SUITES, EvalConfig
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError
from lmctl.core.extras import require
from lmctl.core.files import refuse_file, write_json
from lmctl.core.json_lines import emit
from lmctl.core.paths import Paths, run_of
from lmctl.core.regular_files import JSON_BYTES, read_bytes
from lmctl.core.suggest import did_you_mean

if TYPE_CHECKING:
    from lmctl.core.batch import Row, Split
    from lmctl.data.base import Source
    from lmctl.inference.comparison import Comparison
    from lmctl.inference.load import Loaded
    from lmctl.inference.number_formats import Numerics
    from lmctl.inference.progress import Watch
    from lmctl.inference.suites.job import Figures
    from lmctl.inference.trained_on import OwnTask
    from lmctl.train.display import Display


class Eval(Verb[EvalConfig]):
    purpose = "Measure how good a model is on held-out text, rows or files; any Hugging Face model will do."
    examples = (
        "lmctl eval model_path=runs/mine",
        "lmctl eval model_path=runs/mine suite=perplexity data=text data.path=test.txt",
        "lmctl eval model_path=gpt2 suite=minimal_pairs file=pairs.tsv",
    )
    often = (
        "model_path", "suite", "data.path", "file", "rows", "batch", "precision", "quantize", "out", "seed",
    )  # fmt: skip
    schema = EvalConfig
    words = ("model_path",)
    results = "out"

    def run(self, config: EvalConfig) -> None:
        """Evaluate, print a table, and merge the metrics into eval.json. With a precision or quantisation, print the
        metrics of the quantised model next to those of the original."""
        from lmctl.config.build import prefixes
        from lmctl.inference.load import model_folder
        from lmctl.inference.number_formats import Numerics

        model_folder(config.model_path)  # refuses a wrong path before slow imports
        trusted, where, given = prefixes(config.trusted), config.runner, config.data
        out = results_file(config)
        numerics = Numerics(config.precision, config.quantize)
        numerics.check()

        from lmctl.inference.trained_on import own_tasks
        from lmctl.train.display import Display

        display = Display()
        own = own_tasks(config.model_path, trusted, needed=given is None)
        display.say(announcement(config, given, own))  # before slow imports

        from lmctl.inference.load import device_of, load
        from lmctl.inference.training_overlap import unseen
        from lmctl.train.display import quiet_libraries

        quiet_libraries()
        numerics.refuse(device_of(where))
        loaded = load(config.model_path, where)
        other = load(config.model_path, where, numerics) if numerics else None
        split = "valid" if config.split == "auto" else config.split
        if given is not None and config.split == "auto":
            measured = unseen(config.model_path, trusted, given)
            given, split = measured.source, measured.split
            if measured.remark:
                display.say(f"data: {measured.remark}")
        measurement = Measurement(config, out, display, loaded, other, numerics, split, own)
        work = planned(config, loaded, own, given)
        for name, task, source in work:
            alone = [one for one, _, _ in work].count(name) == 1
            measurement.measure(name, task, source, title=name if alone else f"{name}/{task}")
        display.say(f"written to {out}")


@dataclass(frozen=True)
class Measurement:
    """The evaluation of one model, suite by suite."""

    config: EvalConfig
    out: Path
    display: Display
    loaded: Loaded
    other: Loaded | None
    """The same model in the number formats `numerics`."""
    numerics: Numerics
    split: str
    own: Mapping[str, OwnTask]

    def measure(self, name: str, task: str | None, source: Source, title: str) -> None:
        """Run one suite on the rows of `source`, write its metrics under `title`, and print them."""
        from lmctl.inference.comparison import compare
        from lmctl.inference.progress import Watch
        from lmctl.inference.suites import job as suites

        config, watch = self.config, Watch(self.display, name)
        rows = partial(_counted_rows, watch, source, self.split, config.rows)
        job = suites.SuiteJob(self.loaded, rows, source.yields, config, self.out.parent, task, self.own.get(task or ""))
        reads = name in ("robustness", "loss") or suites.SUITES[name].kind is not None
        data = source.describe() if reads else str(config.file)
        self.display.say(f"{name}: {self.split} rows of {data}" if reads else f"{name}: {data}")
        with watch.over(self.loaded.model):
            figures = suites.run(name, job)
        if reads:
            figures["split"] = self.split
        write_json(self.out, {**_existing_metrics(self.out), title: figures})
        record: dict[str, Any] = {"model_path": config.model_path, "suite": name, "task": task, "data": data}
        record |= {"split": self.split if reads else None, "n": counted(figures), "numerics": None, "figures": figures}
        comparison = None if self.other is None else compare(name, job, figures, self.other)
        if comparison is not None:
            write_json(self.out, {**_existing_metrics(self.out), f"{title}@{self.numerics.name}": comparison.record()})
            record |= {"numerics": self.numerics.name, "comparison": comparison.record()}
        if config.format == "json":
            emit(record)
        else:
            print(table(title, figures) if comparison is None else comparison_table(title, comparison), flush=True)


def announcement(config: EvalConfig, given: Source | None, own: Mapping[str, OwnTask]) -> str:
    """One line that says what is evaluated on which data, printed before the model is loaded."""
    what = "what its own tasks call for" if config.suite == "auto" else f"suite={config.suite}"
    tasks = [name for name in own if config.task in (None, name)]
    if config.suite in ("minimal_pairs", "nbest"):
        on = str(config.file)
    elif given is not None:
        on = type(given).__name__ + (f" {given.place}" if given.place else "")
    else:
        on = f"what its run held out ({', '.join(tasks)})" if tasks else "the data that come with lmctl"
    return f"eval: model_path={config.model_path}: {what}, on {on}; loading the model"


def counted(figures: Figures) -> int | None:
    """The number of examples behind the metrics, under whichever name the suite has it."""
    found = (figures.get(name) for name in ("rows", "documents", "pairs", "lists"))
    return next((value for value in found if isinstance(value, int)), None)


Work: TypeAlias = "list[tuple[str, str | None, Source]]"
"""Suites, each with a task of the model (None: no task) and the source of its rows."""


def planned(config: EvalConfig, loaded: Loaded, own: Mapping[str, OwnTask], given: Source | None) -> Work:
    """The suites to run: the chosen one, or those that fit the model's own tasks; on the given data, or on the tasks'
    own. ConfigError if there are none."""
    from lmctl.data.pydocs import PyDocs
    from lmctl.inference.suites import job as suites

    tasks = list(loaded.tasks or {})
    if config.task is not None and config.task not in tasks:
        raise ConfigError(
            f"task={config.task}: the model has no such task{did_you_mean(config.task, tasks)}",
            None if tasks else "only models that lmctl trained know their tasks",
        )
    chosen: list[str | None] = [config.task] if config.task is not None else [*tasks] or [None]
    work: Work = []
    for task in chosen:
        mine = own.get(task or "")
        source = given or (mine.source if mine is not None else PyDocs())
        name = suites.natural(loaded, task) if config.suite == "auto" else config.suite
        stands_alone = name in suites.SUITES and suites.SUITES[name].kind is None and name != "loss"
        fits = stands_alone or name in ("loss", "robustness") or name == suites.natural(loaded, task)
        note = (loaded.tasks or {}).get(task or "")
        kind = source.yields if note is None else note["reads"]
        if len(chosen) == 1 or (fits and (stands_alone or kind == source.yields)):
            work.append((name, task, source))
        if stands_alone:  # the suite reads its own file, whatever the task
            break
    if not work:
        raise ConfigError(
            f"none of the model's tasks ({', '.join(tasks)}) goes with suite={config.suite} and these data",
            "task=NAME says which is meant",
        )
    for name, task, _ in work:
        one = suites.natural(loaded, task) if name == "robustness" else name
        require(f"suite={one}", SUITES[one])
    return work


def results_file(config: EvalConfig) -> Path:
    """`out`, or eval.json in the run directory of the model, or else in the working directory. ConfigError if its
    folder does not exist, or if the existing file is not one of eval's."""
    paths = Paths(run_of(Path(config.model_path)))
    is_run = paths.config.is_file() or (paths.model / "config.json").is_file()
    out = Path(config.out) if config.out is not None else (paths.results if is_run else Path("eval.json"))
    refuse_file(out, "out")
    _existing_metrics(out)
    return out


def table(suite: str, figures: Figures) -> str:
    """The metrics, one per line."""
    width = max(map(len, figures))
    lines = [suite]
    for name, value in figures.items():
        text = f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        lines.append(f"  {name:<{width}}  {text}")
    return "\n".join(lines)


def comparison_table(suite: str, comparison: Comparison) -> str:
    """A table of the metrics of original and quantised model, and the change."""
    rows = [(suite, *comparison.names, "change"), *comparison.lines()]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for place, (name, one, other, change) in enumerate(rows):
        indent = "  " if place else ""
        lines.append(f"{indent + name:<{wide[0] + 2}}  {one:>{wide[1]}}  {other:>{wide[2]}}  {change}".rstrip())
    for name, value in comparison.original.items():
        if isinstance(value, str):
            lines.append(f"  {name:<{wide[0]}}  {value}")
    if comparison.speed.decibel is not None:
        lines.append(f"  logits of the first batch: {comparison.speed.decibel:.1f} dB from those of the model as it is")
    lines += [f"  {line}" for line in comparison.report]
    return "\n".join(lines)


def _counted_rows(watch: Watch, source: Source, split: str, most: int | None) -> Iterator[Row]:
    return watch.rows(_rows(source, split, most))


def _rows(source: Source, split: str, most: int | None) -> Iterator[Row]:
    splits: tuple[Split, ...] = ("train", "valid")
    chosen = [one for one in splits if split in (one, "all")]
    return islice(chain.from_iterable(map(source.rows, chosen)), most)


def _existing_metrics(out: Path) -> dict[str, Any]:
    """The metrics of other suites in an existing `out`."""
    if not out.exists():
        return {}
    try:
        found = json.loads(read_bytes(out, JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"out={out} is there and is not JSON: {error}", "choose another out=...") from None
    if not isinstance(found, dict) or not all(isinstance(figures, dict) for figures in found.values()):
        raise ConfigError(f"out={out} is there and holds no figures of lmctl eval", "choose another out=...")
    return found
