"""`lmctl eval`: how good a model is, in figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from omegaconf import DictConfig

from lmctl.config.build import build, check_root
from lmctl.config.use_schema import EvalConfig
from lmctl.core.batch import Row, Split
from lmctl.core.errors import ConfigError
from lmctl.core.files import write_json
from lmctl.core.json_lines import emit
from lmctl.core.places import Paths, run_of
from lmctl.core.suggest import did_you_mean
from lmctl.data.base import Source
from lmctl.precision.base import Precision, Quantization
from lmctl.runner.base import Where
from lmctl.use.load import model_folder
from lmctl.use.numerics import Numerics

if TYPE_CHECKING:
    from lmctl.use.comparison import Comparison
    from lmctl.use.load import Loaded
    from lmctl.use.own import OwnTask
    from lmctl.use.progress import Watch
    from lmctl.use.suites.job import Figures


def run(cfg: DictConfig) -> None:
    """Measure, print a table, and put the figures into eval.json beside those of other suites. With other number
    formats, a second table sets the model in these beside the model as it is."""
    config = check_root(cfg, EvalConfig)
    model_folder(config.model_path)  # a wrong one is refused at once, before libraries are read
    where = build(cfg.runner, Where)
    trusted = ("lmctl.", *(f"{package}." for package in cfg.trusted))
    given = None if cfg.data is None else build(cfg.data, Source, trusted=trusted)
    out = results_file(config)

    numerics = _numerics(cfg, trusted)

    from lmctl.run.display import Display
    from lmctl.use.own import own_tasks

    display = Display()
    own = own_tasks(config.model_path, trusted, needed=given is None)
    display.say(begins(config, given, own))  # before libraries are read, which takes a while

    from lmctl.run.display import quiet_libraries
    from lmctl.use.comparison import compare
    from lmctl.use.learnt import unseen
    from lmctl.use.load import device_of, load
    from lmctl.use.progress import Watch
    from lmctl.use.suites import job as suites

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
    work = planned(config, loaded, own, given)
    for name, task, source in work:
        watch = Watch(display, name)
        rows = partial(_watched, watch, source, split, config.rows)
        job = suites.Job(loaded, rows, source.yields, config, out.parent, task, own.get(task or ""))
        reads = name in ("robustness", "loss") or suites.SUITES[name].kind is not None
        data = source.describe() if reads else str(config.file)
        display.say(f"{name}: {split} rows of {data}" if reads else f"{name}: {data}")
        with watch.over(loaded.model):
            figures = suites.run(name, job)
        if reads:
            figures["split"] = split
        title = name if [one for one, _, _ in work].count(name) == 1 else f"{name}/{task}"
        write_json(out, {**_earlier(out), title: figures})
        record: dict[str, Any] = {"model_path": config.model_path, "suite": name, "task": task, "data": data}
        record |= {"split": split if reads else None, "n": counted(figures), "numerics": None, "figures": figures}
        if other is not None:
            comparison = compare(name, job, figures, other)
            write_json(out, {**_earlier(out), f"{title}@{numerics.name}": comparison.record()})
            record |= {"numerics": numerics.name, "comparison": comparison.record()}
        if config.format == "json":
            emit(record)
        else:
            print(table(title, figures) if other is None else beside(title, comparison), flush=True)
    display.say(f"written to {out}")


def begins(config: EvalConfig, given: Source | None, own: Mapping[str, OwnTask]) -> str:
    """What is about to be measured, in one line that costs nothing to say."""
    what = "what its own tasks call for" if config.suite == "auto" else f"suite={config.suite}"
    tasks = [name for name in own if config.task in (None, name)]
    if config.suite in ("minimal_pairs", "nbest"):
        on = str(config.file)
    elif given is not None:
        on = type(given).__name__ + (f" {place}" if (place := getattr(given, "path", None)) else "")
    else:
        on = f"what its run held out ({', '.join(tasks)})" if tasks else "the data that come with lmctl"
    return f"eval: model_path={config.model_path}: {what}, on {on}; loading the model"


def counted(figures: Figures) -> int | None:
    """How many things the figures are about, whatever they are called."""
    found = (figures.get(name) for name in ("rows", "documents", "pairs", "lists"))
    return next((value for value in found if isinstance(value, int)), None)


Work: TypeAlias = "list[tuple[str, str | None, Source]]"
"""Suites, each with the model's own task it is about (None: the model as such) and the rows it reads."""


def planned(config: EvalConfig, loaded: Loaded, own: Mapping[str, OwnTask], given: Source | None) -> Work:
    """What is to be measured: the suite that was asked for, or those that the model's own tasks call for; on the
    data that was named, or on the tasks' own. ConfigError if there is nothing."""
    from lmctl.data.pydocs import PyDocs
    from lmctl.use.suites import job as suites

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
        if stands_alone:  # a file of its own: the model's tasks do not matter
            break
    if not work:
        raise ConfigError(
            f"none of the model's tasks ({', '.join(tasks)}) goes with suite={config.suite} and these data",
            "task=NAME says which is meant",
        )
    return work


def results_file(config: EvalConfig) -> Path:
    """`out`; or eval.json, in the run directory if the model is a run's, or else here. ConfigError if its folder
    does not exist, or if what stands there is something else."""
    paths = Paths(run_of(Path(config.model_path)))
    is_run = paths.config.is_file() or (paths.model / "config.json").is_file()
    out = Path(config.out) if config.out is not None else (paths.root if is_run else Path()) / "eval.json"
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no directory {out.parent}")
    _earlier(out)
    return out


def table(suite: str, figures: Figures) -> str:
    """The figures, one a line."""
    width = max(map(len, figures))
    lines = [suite]
    for name, value in figures.items():
        text = f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        lines.append(f"  {name:<{width}}  {text}")
    return "\n".join(lines)


def beside(suite: str, comparison: Comparison) -> str:
    """The figures of both sides, one a line, and what changed."""
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


def _numerics(cfg: DictConfig, trusted: tuple[str, ...]) -> Numerics:
    precision = None if cfg.precision is None else build(cfg.precision, Precision, trusted=trusted)
    quantize = None if cfg.quantize is None else build(cfg.quantize, Quantization, trusted=trusted)
    numerics = Numerics(precision, quantize)
    numerics.check()
    return numerics


def _watched(watch: Watch, source: Source, split: str, most: int | None) -> Iterator[Row]:
    return watch.rows(_rows(source, split, most))


def _rows(source: Source, split: str, most: int | None) -> Iterator[Row]:
    splits: tuple[Split, ...] = ("train", "valid")
    chosen = [one for one in splits if split in (one, "all")]
    return islice(chain.from_iterable(map(source.rows, chosen)), most)


def _earlier(out: Path) -> dict[str, Any]:
    """The figures of other suites that stand in `out` already."""
    if not out.exists():
        return {}
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"out={out} is there and is not JSON: {error}", "choose another out=...") from None
    if not isinstance(found, dict) or not all(isinstance(figures, dict) for figures in found.values()):
        raise ConfigError(f"out={out} is there and holds no figures of lmctl eval", "choose another out=...")
    return found
