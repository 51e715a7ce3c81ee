"""model/: the trained weights as a Hugging Face directory that plain transformers loads."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from lmctl.core.batch import Family
from lmctl.core.files import write_json, write_text, writing
from lmctl.core.places import Paths
from lmctl.run import figures
from lmctl.run.assemble import heads_of
from lmctl.run.trainer import Trainer
from lmctl.tokenizer.vocabulary import vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


EXTRA_HEADS = "extra_heads.safetensors"
"""Heads of further tasks, which the transformers class of the model has no place for."""
TASKS = "lmctl_tasks.json"
"""What the model was trained for: `{task: {"objective", "reads", "label_kind", "labels", "end_of"}}`."""
HEADS = "heads.json"
"""Beside a model directory's files without the weights: the network's heads and their numbers of outputs."""
PROBLEMS = {
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "number": "regression",
}
"""Kinds of labels in the words of transformers' configs."""


def export(paths: Paths, trainer: Trainer, summary: dict[str, Any]) -> None:
    """Write weights (safetensors), config, tokenizer and model card, whole or not at all."""
    model: Any = trainer.plan.precision.restore(trainer.network.pretrained())
    tasks = tasks_of(trainer)
    _name_labels(model.config, tasks)

    def fill(folder: Path) -> None:
        _write_tokenizer(folder, trainer)
        write_text(folder / TASKS, json.dumps(tasks, indent=2, ensure_ascii=False) + "\n")
        write_weights(folder, model, trainer.network)
        write_text(folder / "README.md", card(paths, model, summary))

    replace_folder(paths.model, fill)


def write_template(paths: Paths, trainer: Trainer, renew: bool) -> None:
    """Write what belongs to a model directory besides weights into checkpoints/, once in a run, so that any checkpoint
    can be made a model without the text that it was trained on; `renew` it if the run only begins."""
    folder = paths.template
    if folder.is_dir() and not renew:
        return
    network = trainer.network
    config = copy.deepcopy(network.model.config)
    config.architectures, config.dtype = [type(network.model).__name__], "float32"  # whatever it is trained in
    tasks = tasks_of(trainer)
    _name_labels(config, tasks)

    def fill(partial: Path) -> None:
        partial.mkdir()
        config.save_pretrained(partial)
        if network.model.can_generate():
            network.model.generation_config.save_pretrained(partial)
        _write_tokenizer(partial, trainer)
        write_text(partial / TASKS, json.dumps(tasks, indent=2, ensure_ascii=False) + "\n")
        write_json(partial / HEADS, heads_of(trainer.plan, trainer.prepared))

    folder.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(folder, fill)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Put what `fill` writes into a new directory in the place of `folder`, whole or not at all."""
    partial = folder.with_name(f".{folder.name}-partial-{os.getpid()}")
    try:
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            fill(partial)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_weights(folder: Path, model: Any, network: Any) -> None:
    """The weights of `model`, and those of the heads of `network` that it has no place for."""
    model.save_pretrained(folder)
    if extra := network.extra_heads():
        save_file({name: value.float().contiguous() for name, value in extra.items()}, folder / EXTRA_HEADS)


def _write_tokenizer(folder: Path, trainer: Trainer) -> None:
    tokenizer = copy.deepcopy(trainer.prepared.tokenizer)
    as_trained(tokenizer, trainer.plan.model.family, causal="lm" in heads_of(trainer.plan, trainer.prepared))
    tokenizer.save_pretrained(folder)


def tasks_of(trainer: Trainer) -> dict[str, Any]:
    """What the model is trained for, as TASKS says it."""
    return {
        name: {
            "objective": type(task.objective).__name__,
            "reads": task.objective.reads,
            "label_kind": task.objective.label_kind,
            "labels": list(trainer.prepared.corpora[name].train.label_names),
            "end_of": task.objective.end_of,
        }
        for name, task in trainer.plan.mix.tasks.items()
    }


def _name_labels(config: Any, tasks: dict[str, Any]) -> None:
    """The classes by name in the config, where plain transformers looks for them, and what kind of labels they are."""
    for task in tasks.values():
        if kind := PROBLEMS.get(task["label_kind"]):
            config.problem_type = kind
        if task["labels"] and len(task["labels"]) == getattr(config, "num_labels", 0):
            config.id2label = dict(enumerate(task["labels"]))
            config.label2id = {label: place for place, label in enumerate(task["labels"])}


def as_trained(tokenizer: PreTrainedTokenizerFast, family: Family, causal: bool) -> None:
    """Let plain `tokenizer(text)` frame a text as it was framed in training: [CLS] text [SEP] for encoders and
    classifiers, text [SEP] for encoder-decoders, [SEP] text for language models, to which [SEP] both ends a
    document and begins the next."""
    if family == "encoder" or (family == "decoder" and not causal):
        return
    from tokenizers.processors import TemplateProcessing

    known = vocabulary(tokenizer)
    sep = str(tokenizer.convert_ids_to_tokens(known.sep))
    frame = f"$A {sep}" if family == "seq2seq" else f"{sep} $A"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=frame, special_tokens=[(sep, known.sep)])
    tokenizer.eos_token = sep
    if family == "decoder":
        tokenizer.bos_token = sep


def card(paths: Paths, model: Any, summary: dict[str, Any]) -> str:
    """The model card: what it is, how it was trained, how good it is, how to load it."""
    kind, module = type(model).__name__, type(model).__module__
    module = "transformers" if module.startswith("transformers.") else module
    exported = summary["exported_step"]
    chosen = "" if exported == summary["steps"] else f"These are the weights of step {exported:,}, the best ones.\n"
    rows = " and ".join(f"{count:,} rows of `{task}`" for task, count in summary["valid_rows"].items())
    return f"""---
library_name: transformers
tags: [lmctl]
---
# {paths.root.name}

`{kind}` with {summary["parameters"]["total"]:,} parameters, trained by lmctl for {summary["steps"]:,} steps on
{summary["tokens"]:,} tokens. `config.yaml` of the run directory repeats the run: `lmctl train --from config.yaml`.
{chosen}
Measured on {rows} that were not trained on. The intervals say how much a figure would
differ on other rows like these. The baseline is the best answer that does not look at the text; "unclear" means that
it lies within the interval.

{figures.table(summary)}

```python
from transformers import AutoTokenizer
from {module} import {kind}

model = {kind}.from_pretrained("{paths.model.name}")
tokenizer = AutoTokenizer.from_pretrained("{paths.model.name}")
```
"""
