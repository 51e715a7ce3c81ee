"""A run that is not finished, or one of its checkpoints, as a model: exported once, where the checkpoint lies.

The text that the run was trained on is not needed: the run wrote down all of a model directory but the weights when it
began (`lmctl.train.export.write_template`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from lmctl.config.saved import config_text, recorded_config
from lmctl.core.cache import cached, default_root
from lmctl.core.command_words import command
from lmctl.core.errors import ConfigError, DiskError, LmctlError
from lmctl.core.extras import require
from lmctl.core.files import write_text
from lmctl.core.foreign_config import refuse_sizes
from lmctl.core.model_files import CONFIG, json_object
from lmctl.core.paths import Paths, run_of
from lmctl.core.pretrained_files import tokenizer_of
from lmctl.core.regular_files import refuse_links
from lmctl.core.run_summary import RunSummary
from lmctl.core.safetensors_header import header
from lmctl.core.terminal import tell
from lmctl.model.artifact.adapter import is_adapter, merged
from lmctl.precision.base import Precision

MODEL = "model"
"""The directory in a checkpoint that its model is exported to."""
NAMES = ("init_from", "teacher")
"""Settings that name a model, wherever they stand."""
MORE = {
    "lmctl.tokenizer.pretrained.Pretrained": ("path",),
    "lmctl.augment.back_translate.BackTranslate": ("there", "back"),
}
"""Those of single components."""


class Chosen(NamedTuple):
    """A checkpoint, and why it is this one."""

    path: Path
    why: str


def model_in(place: str, key: str) -> str:
    """The model directory of a run that is not finished, of a checkpoint or of an adapter with its base, which is made
    if need be and said on the terminal; any other `place` as it is. `key` is the setting it was given as, for messages.
    ConfigError if nothing there can be used."""
    if is_adapter(place):
        return merged(key, place, say)
    folder = Path(place).expanduser()
    run = Paths(run_of(folder))
    asked = f"{key}={place}"
    if run.lock.exists() and not run.config.exists() and run.root == folder:
        raise ConfigError(f"{asked}: a run has only begun there, so there is nothing to look at yet")
    if not is_unfinished(place):
        if not run.config.is_file() or (folder / MODEL / "config.json").is_file():
            _say_if_older(run, folder, asked)
        return place
    refuse_links(run)
    going_on = _going_on(run)
    while True:
        chosen = _of_run(run, going_on, asked) if folder == run.root else _of_name(run, folder.name, asked)
        try:
            model = _exported(chosen.path, going_on, asked)
            break
        except (OSError, LmctlError):
            if chosen.path.is_dir() or not going_on:
                raise  # else the run removed it meanwhile, because there are newer ones
    say(f"{asked}: {chosen.path.name}, {chosen.why}")
    return str(model.parent if model.parent == chosen.path else model)


def is_unfinished(place: str) -> bool:
    """Whether `place` is a run that has no model yet, or one of its checkpoints."""
    folder = Path(place).expanduser()
    run = Paths(run_of(folder))
    has_model = not run.config.is_file() or (folder / MODEL / "config.json").is_file()
    return not has_model and folder in (run.root, run.checkpoints / folder.name)


def with_models(cfg: DictConfig, check: Callable[[], object] = lambda: None) -> DictConfig:
    """A config whose settings that name models name checkpoints, where they named runs that are not finished. `check`
    is called before a model is made, which takes a while, for whatever else is wrong with the config."""
    cfg = cfg.copy()

    def found(place: str, key: str) -> str:
        if is_unfinished(place) or is_adapter(place):
            check()
        return model_in(place, key)

    for node in _nodes(cfg):
        for name in (*NAMES, *(MORE.get(str(node.get("_target_")), ()) if "_target_" in node else ())):
            if name not in node or OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
                continue
            value = node[name]
            if isinstance(value, str):
                node[name] = found(value, name)
            elif OmegaConf.is_list(value):
                node[name] = [found(one, name) if isinstance(one, str) else one for one in value]
    return cfg


def _nodes(node: Any) -> Iterator[DictConfig]:
    """All mappings in a config; references are left alone."""
    if isinstance(node, DictConfig):
        if node._is_none() or node._is_missing() or node._is_interpolation():
            return
        yield node
        keys: list[Any] = list(node)
    elif isinstance(node, ListConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        keys = list(range(len(node)))
    else:
        return
    for key in keys:
        if not (OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key)):
            yield from _nodes(node[key])


def _of_run(run: Paths, going_on: bool, asked: str) -> Chosen:
    """The checkpoint that stands for a run: the best if early stopping is to choose, else the newest that is sound."""
    from lmctl.train.checkpoint_reader import NAME, pointer, verify

    cfg, state = recorded_config(run), f"the run is {'still going on' if going_on else 'not finished'}"
    best = pointer(run.checkpoints, "best")
    if OmegaConf.select(cfg, "early_stop.patience") is not None and best is not None:
        path = run.checkpoints / best
        if verify(path) is None:
            return Chosen(path, f"the best so far; {state}")
    found = run.checkpoints.iterdir() if run.checkpoints.is_dir() else iter(())
    for path in sorted((one for one in found if NAME.fullmatch(one.name)), reverse=True):
        if verify(path) is None:
            return Chosen(path, f"the newest checkpoint; {state}")
    raise ConfigError(
        f"{asked}: this run has no checkpoint yet, so there is nothing to look at",
        f"go on with it: {command('lmctl train resume=auto', run_dir=run.root)}",
    )


def _of_name(run: Paths, name: str, asked: str) -> Chosen:
    """The checkpoint that was named, or that `best` or `latest` names."""
    from lmctl.train.checkpoint_reader import pointer, verify

    path, why = run.checkpoints / name, "as named"
    if name in ("best", "latest") and (named := pointer(run.checkpoints, name)) is not None:
        path, why = run.checkpoints / named, f"the {name} checkpoint"
    if not path.is_dir():
        there = ", ".join(sorted(one.name for one in run.checkpoints.glob("step-*"))) or "none"
        raise ConfigError(f"{asked}: there is no such checkpoint", f"there: {there}")
    if (damage := verify(path)) is not None:
        raise ConfigError(f"{asked}: this checkpoint is damaged, {damage}", f"the newest sound one: {run.root}")
    return Chosen(path, why)


def _going_on(run: Paths) -> bool:
    """Whether a process is training in that run directory now."""
    from filelock import FileLock, Timeout

    if not run.lock.exists():
        return False
    try:
        with FileLock(run.lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # nothing can be written there
        return False


def restore_config(run: Paths) -> None:
    """Write config.yaml anew from the newest sound checkpoint, which knows the config that it belongs to; says so."""
    from lmctl.train.checkpoint_reader import Damaged, config_of, verify

    refuse_links(run)
    for path in sorted(run.checkpoints.glob("step-*"), reverse=True):
        try:
            if verify(path) is None:
                write_text(run.config, config_text(config_of(path)))
                say(f"config.yaml of {run.root} is missing; it was written anew from {path.name}")
                return
        except Damaged:
            continue


def _exported(checkpoint: Path, going_on: bool, asked: str) -> Path:
    """The model of a sound checkpoint, in it; or in the cache, if nothing can be written there, or if the run is going
    on and will remove the checkpoint while the model is in use."""
    model = checkpoint / MODEL
    if going_on:
        return _in_cache(checkpoint, asked)
    if (model / "config.json").is_file():
        return model
    partial = checkpoint / f".{MODEL}-{os.getpid()}"
    try:
        partial.mkdir()
    except OSError:
        return _in_cache(checkpoint, asked)
    try:
        _export(checkpoint, partial, asked)
        if not model.is_dir():  # another process may have been faster
            os.rename(partial, model)
    except OSError as error:
        raise DiskError(f"cannot write {model}: {error.strerror or error}", "free some space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return model


def _in_cache(checkpoint: Path, asked: str) -> Path:
    key = {"checkpoint": (checkpoint / "manifest.json").read_text(encoding="utf-8")}
    return cached(default_root(), "models", key, lambda folder: _export(checkpoint, folder, asked), Path, say)[0]


def _export(checkpoint: Path, folder: Path, asked: str) -> None:
    """Write the model of `checkpoint` into `folder`, as the end of its run would have."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from lmctl.config.build import build
    from lmctl.model.artifact.writer import complete_outline
    from lmctl.model.pretrained import Template
    from lmctl.tokenizer.vocabulary import vocabulary
    from lmctl.train.checkpoint_reader import Damaged, fill, weights_of

    disable_progress_bar()
    run = Paths(checkpoint.parent.parent)
    template = run.template
    if not template.is_dir():
        raise ConfigError(
            f"{asked}: this run was begun by an earlier lmctl, which did not write down what its checkpoints lack",
            f"go on with it: {command('lmctl train resume=auto', run_dir=run.root)}",
        )
    cfg = recorded_config(run)
    precision = build(cfg.precision, Precision)  # of lmctl's own: a file never says what may run
    kept = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
    adapters = {name: value for name in kept if (value := OmegaConf.select(cfg, f"model.{name}")) is not None}
    if "lora_targets" in adapters:
        adapters["lora_targets"] = list(adapters["lora_targets"])
    whole = checkpoint / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(checkpoint.glob("model-*-of-*.safetensors"))
    stored = [(name, one.numbers) for file in files for name, one in header(asked, file).items()]
    sizes = json_object(asked, template / CONFIG)
    refuse_sizes(asked, CONFIG, sizes, sum(numbers for _, numbers in stored), len({name for name, _ in stored}))
    pieces = vocabulary(tokenizer_of(asked, str(template)))
    spec = Template(str(template), **adapters)
    require(asked, spec.imports)
    network: Any = spec.outline(pieces, spec.artifact.heads())
    precision.convert(network, torch.device("cpu"))
    try:
        fill(network, weights_of(checkpoint), asked)
    except Damaged as error:
        raise ConfigError(f"{asked}: {checkpoint.name} cannot be used: {error}") from error
    complete_outline(template, folder, models_of(network, precision), network)


def models_of(network: Any, precision: Precision) -> dict[str, Any]:
    """The transformers models that are written, by directory: the network's own ("") and what stands beside it, in
    plain float weights."""
    models = {"": network.pretrained(), **network.beside()}
    return {place: precision.restore(model) for place, model in models.items()}


def _say_if_older(run: Paths, folder: Path, asked: str) -> None:
    """A finished run that has gone on since has newer weights than those in its model/."""
    if run.root != folder or not run.config.is_file() or (status := RunSummary.of(run).status) == "completed":
        return
    if status is not None:
        say(f"{asked}: model/ is what the run ended with before it went on; newer: {run.checkpoints / 'latest'}")


@cache
def say(line: str) -> None:
    """Say it once, in one of several processes."""
    if os.environ.get("RANK", "0") == "0":
        tell(line)
