"""`lmctl eval`: how good a model is, in figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lmctl.config.build import build, check_root
from lmctl.config.use_schema import EvalConfig
from lmctl.core.errors import ConfigError
from lmctl.core.files import write_json
from lmctl.core.types import Paths, Row, Source, Split, Where

if TYPE_CHECKING:
    from lmctl.use.suites.job import Figures


def run(cfg: DictConfig) -> None:
    """Measure, print a table, and put the figures into eval.json beside those of other suites."""
    config = check_root(cfg, EvalConfig)
    where = build(cfg.runner, Where)
    source = build(cfg.data, Source, trusted=("lmctl.", *(f"{package}." for package in cfg.trusted)))
    out = results_file(config)
    split = _split(config, cfg.data)

    from lmctl.run.display import Display, quiet_libraries
    from lmctl.use.load import device_of, load
    from lmctl.use.suites import job as suites

    quiet_libraries()
    loaded = load(config.model_path, device_of(where))
    name = suites.natural(loaded) if config.suite == "auto" else config.suite
    job = suites.Job(loaded, lambda: _rows(source, split, config.rows), source.yields, config, out.parent)
    if name == "robustness" or suites.SUITES[name].kind is not None:
        Display().say(f"{name}: {split} rows of {source.describe()}")
    figures = suites.run(name, job)
    if name == "robustness" or suites.SUITES[name].kind is not None:
        figures["split"] = split
    write_json(out, {**_earlier(out), name: figures})
    print(table(name, figures))
    Display().say(f"written to {out}")


def results_file(config: EvalConfig) -> Path:
    """`out`; or eval.json, in the run directory if the model is a run's, or else here. ConfigError if its folder
    does not exist, or if what stands there is something else."""
    paths = Paths(Path(config.model_path))
    is_run = (paths.model / "config.json").is_file()
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


def _split(config: EvalConfig, data: DictConfig) -> str:
    """What `auto` stands for: held-out rows of data that the model learnt from, all rows of other data."""
    if config.split != "auto":
        return config.split
    record = Paths(Path(config.model_path)).config
    learnt = OmegaConf.to_container(OmegaConf.load(record)) if record.is_file() else {}
    return "valid" if OmegaConf.to_container(data, resolve=True) in list(_nodes(learnt)) else "all"


def _nodes(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


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
