"""Writing a model directory, whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmctl.core.files import sync_folder, sync_tree, write_json, write_text, writing
from lmctl.core.model_files import TASKS, TaskNote
from lmctl.model.artifact import EXTRA_HEADS, HEADS, PROBLEMS


def write(
    folder: Path,
    models: Mapping[str, Any],
    weights: Callable[[Path], None],
    tokenizer: Any,
    notes: Mapping[str, TaskNote],
    card: str,
) -> None:
    """A new model directory at `folder`, or the one that replaces it, whole or not at all: weights and configs of
    `models`, each in its directory below ("": `folder` itself) with the tokenizer and what they were trained for.
    `weights` writes the weights and configs, as `write_weights` does."""
    name_labels(models[""].config, notes)

    def fill(partial: Path) -> None:
        for place in models:
            tokenizer.save_pretrained(partial / place)
            _write_tasks(partial / place, notes)
        weights(partial)
        write_text(partial / "README.md", card)

    replace(folder, fill)


def write_outline(
    folder: Path,
    configs: Mapping[str, Any],
    generation: Any,
    tokenizer: Any,
    notes: Mapping[str, TaskNote],
    heads: Mapping[str, int],
) -> None:
    """All of a model directory but the weights: what a checkpoint needs besides to be made a model. `configs`: as the
    models of `write`; `generation`: a GenerationConfig, or None for a model that writes nothing."""
    name_labels(configs[""], notes)

    def fill(partial: Path) -> None:
        for place, config in configs.items():
            config.save_pretrained(partial / place)
            tokenizer.save_pretrained(partial / place)
            _write_tasks(partial / place, notes)
        if generation is not None:
            generation.save_pretrained(partial)
        write_json(partial / HEADS, heads)

    folder.parent.mkdir(parents=True, exist_ok=True)
    replace(folder, fill)


def complete_outline(outline: Path, folder: Path, models: Mapping[str, Any], network: Any) -> None:
    """What `write` writes, into `folder`, of the files of `outline` and the weights of `models` and `network`."""
    write_weights(folder, models, network)
    shutil.copytree(outline, folder, ignore=shutil.ignore_patterns(HEADS), dirs_exist_ok=True)


def write_weights(folder: Path, models: Mapping[str, Any], network: Any) -> None:
    """The weights and the configs of `models`, and the heads of `network` that they have no place for."""
    from safetensors.torch import save_file

    for place, model in models.items():
        model.save_pretrained(folder / place)
    if extra := network.extra_heads():
        save_file({name: value.float().contiguous() for name, value in extra.items()}, folder / EXTRA_HEADS)


def name_labels(config: Any, notes: Mapping[str, TaskNote]) -> None:
    """The classes by name in the config, where plain transformers looks for them, and what kind of labels they are."""
    for note in notes.values():
        if note["label_kind"] is not None:
            config.problem_type = PROBLEMS[note["label_kind"]]
        if note["labels"] and len(note["labels"]) == config.num_labels:
            config.id2label = dict(enumerate(note["labels"]))
            config.label2id = {label: place for place, label in enumerate(note["labels"])}


def _write_tasks(folder: Path, notes: Mapping[str, TaskNote]) -> None:
    write_text(folder / TASKS, json.dumps(notes, indent=2, ensure_ascii=False) + "\n")


def replace(folder: Path, fill: Callable[[Path], None]) -> None:
    """Put what `fill` writes into a new directory in the place of `folder`, whole or not at all; what was there before
    stays if that fails."""
    partial, before = (folder.with_name(f".{folder.name}-partial-{what}") for what in (os.getpid(), "replaced"))
    try:
        with writing(folder):
            if before.exists() and not folder.exists():  # killed between the two renames below
                os.rename(before, folder)
            for leftover in folder.parent.glob(f".{glob.escape(folder.name)}-partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            fill(partial)
            sync_tree(partial)
            if folder.exists():
                os.rename(folder, before)
            try:
                os.rename(partial, folder)
            except OSError:
                if before.exists():
                    os.rename(before, folder)
                raise
            sync_folder(folder.parent)
    finally:
        for leftover in (partial, before):
            shutil.rmtree(leftover, ignore_errors=True)
