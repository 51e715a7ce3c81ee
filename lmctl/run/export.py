"""model/: the trained weights as a Hugging Face directory that plain transformers loads."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from lmctl.core.batch import Family
from lmctl.core.files import write_text, writing
from lmctl.core.places import Paths
from lmctl.run.assemble import heads_of
from lmctl.run.runner import Runner
from lmctl.tokenizer.vocabulary import vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


EXTRA_HEADS = "extra_heads.safetensors"
"""Heads of further tasks, which the transformers class of the model has no place for."""
TASKS = "lmctl_tasks.json"
"""What the model was trained for: `{task: {"objective", "reads", "label_kind", "labels", "end_of"}}`."""
PROBLEMS = {
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "number": "regression",
}
"""Kinds of labels in the words of transformers' configs."""


def export(paths: Paths, runner: Runner, summary: dict[str, Any]) -> None:
    """Write weights (safetensors), config, tokenizer and model card, whole or not at all."""
    partial = paths.root / ".model-partial"
    network, tokenizer = runner.network, runner.prepared.tokenizer
    model: Any = runner.plan.precision.restore(network.pretrained())
    tasks = _tasks(runner)
    _name_labels(model, tasks)
    try:
        with writing(paths.model):
            shutil.rmtree(partial, ignore_errors=True)
            model.save_pretrained(partial)
            as_trained(tokenizer, runner.plan.model.family, causal="lm" in heads_of(runner.plan, runner.prepared))
            tokenizer.save_pretrained(partial)
            write_text(partial / TASKS, json.dumps(tasks, indent=2, ensure_ascii=False) + "\n")
            if extra := network.extra_heads():
                save_file({name: value.float().contiguous() for name, value in extra.items()}, partial / EXTRA_HEADS)
            write_text(partial / "README.md", card(paths, model, summary))
            shutil.rmtree(paths.model, ignore_errors=True)
            os.rename(partial, paths.model)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _tasks(runner: Runner) -> dict[str, Any]:
    return {
        name: {
            "objective": type(task.objective).__name__,
            "reads": task.objective.reads,
            "label_kind": task.objective.label_kind,
            "labels": list(runner.prepared.corpora[name].train.label_names),
            "end_of": getattr(task.objective, "end_of", "document"),
        }
        for name, task in runner.plan.mix.tasks.items()
    }


def _name_labels(model: Any, tasks: dict[str, Any]) -> None:
    """The classes by name in the config, where plain transformers looks for them, and what kind of labels they are."""
    for task in tasks.values():
        if kind := PROBLEMS.get(task["label_kind"]):
            model.config.problem_type = kind
        if task["labels"] and len(task["labels"]) == getattr(model.config, "num_labels", 0):
            model.config.id2label = dict(enumerate(task["labels"]))
            model.config.label2id = {label: place for place, label in enumerate(task["labels"])}


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
    baseline = summary.get("baseline", {})
    rows = "\n".join(
        f"| {name} | {value:.4f} | {f'{baseline[name]:.4f}' if name in baseline else ''} |"
        for name, value in summary["valid"].items()
    )
    return f"""---
library_name: transformers
tags: [lmctl]
---
# {paths.root.name}

`{kind}` with {summary["parameters"]["total"]:,} parameters, trained by lmctl for {summary["steps"]:,} steps on
{summary["tokens"]:,} tokens. `config.yaml` of the run directory repeats the run: `lmctl train --from config.yaml`.

| on held-out text | value | without looking at the text |
|---|---|---|
{rows}

```python
from transformers import AutoTokenizer
from {module} import {kind}

model = {kind}.from_pretrained("{paths.model.name}")
tokenizer = AutoTokenizer.from_pretrained("{paths.model.name}")
```
"""
