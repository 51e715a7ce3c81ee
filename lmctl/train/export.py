"""model/: the trained weights as a Hugging Face directory that plain transformers loads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.batch import Family
from lmctl.core.model_files import TaskNote
from lmctl.core.paths import Paths
from lmctl.core.shards import is_sharded
from lmctl.model.artifact import writer
from lmctl.model.artifact.gathered import gather
from lmctl.tokenizer.vocabulary import vocabulary
from lmctl.train import final_figures
from lmctl.train.build_parts import heads_of
from lmctl.train.trainer import Trainer
from lmctl.train.unfinished import models_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def export(paths: Paths, trainer: Trainer, summary: dict[str, Any]) -> None:
    """Write weights (safetensors), config, tokenizer and model card, whole or not at all, in rank 0. A collective
    operation: where weights are sharded they are gathered one by one."""
    models, network = models_of(trainer.network, trainer.plan.precision), trainer.network
    if not trainer.processes.first:
        if is_sharded(next(network.parameters())):
            gather(models, network)
        return
    tokenizer, notes = tokenizer_of(trainer), tasks_of(trainer)

    def weights(folder: Path) -> None:
        if is_sharded(next(network.parameters())):
            for place, model in models.items():
                _config(model).save_pretrained(folder / place)
                if model.can_generate():
                    model.generation_config.save_pretrained(folder / place)
            gather(models, network, folder)
        else:
            writer.write_weights(folder, models, network)

    writer.write(paths.model, models, weights, tokenizer, notes, card(paths, models[""], summary))


def write_template(paths: Paths, trainer: Trainer, renew: bool) -> None:
    """Write what belongs to a model directory besides weights into checkpoints/, once in a run, so that any checkpoint
    can be made a model without the text that it was trained on; `renew` it if the run only begins."""
    if paths.template.is_dir() and not renew:
        return
    model: Any = trainer.network.model
    configs = {place: _config(one) for place, one in {"": model, **trainer.network.beside()}.items()}
    generation = model.generation_config if model.can_generate() else None
    heads = heads_of(trainer.plan, trainer.prepared)
    writer.write_outline(paths.template, configs, generation, tokenizer_of(trainer), tasks_of(trainer), heads)


def _config(model: Any) -> Any:
    """The config that `model` will be exported with, whatever it is trained in."""
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], "float32"
    return config


def tokenizer_of(trainer: Trainer) -> PreTrainedTokenizerFast:
    """The run's tokenizer, as plain transformers is to use it."""
    tokenizer = copy.deepcopy(trainer.prepared.tokenizer)
    as_trained(tokenizer, trainer.plan.model.family, causal="lm" in heads_of(trainer.plan, trainer.prepared))
    return tokenizer


def tasks_of(trainer: Trainer) -> dict[str, TaskNote]:
    """What the model is trained for."""
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
    # GPT-2 adds an embedding for these, which it was not trained with, and encoder-decoders refuse them.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
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

{final_figures.table(summary)}

```python
from transformers import AutoTokenizer
from {module} import {kind}

model = {kind}.from_pretrained("{paths.model.name}")
tokenizer = AutoTokenizer.from_pretrained("{paths.model.name}")
```
"""
