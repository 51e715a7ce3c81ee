"""Suggestions for unknown words: names of the same thing in other tools, and common typing mistakes."""

from __future__ import annotations

import re
from pathlib import Path

from lmctl.cli.arguments import UnknownFlag
from lmctl.config.compose import Composer
from lmctl.config.described import found
from lmctl.core import command_words
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import nearest

SETTINGS = {
    "accumulate_grad_batches": "batch.micro",
    "adam_beta1": "optim.betas",
    "adam_epsilon": "optim.eps",
    "batch_size": "batch.size",
    "bs": "batch.size",
    "bsz": "batch.size",
    "checkpoint_dir": "run_dir",
    "d_model": "model.hidden",
    "data_dir": "data.path",
    "dataset": "data",
    "dataset_name": "data",
    "device": "runner",
    "devices": "runner.processes",
    "early_stopping_patience": "early_stop.patience",
    "eval_steps": "eval.every",
    "evaluation_strategy": "eval.every",
    "experiment_name": "name",
    "ffn_dim": "model.feed_forward",
    "gpus": "runner.processes",
    "grad_accum": "batch.micro",
    "gradient_accumulation_steps": "batch.micro",
    "gradient_clip_val": "clip_norm",
    "hidden_dim": "model.hidden",
    "hidden_dropout_prob": "model.dropout",
    "hidden_size": "model.hidden",
    "intermediate_size": "model.feed_forward",
    "label_column": "data.label",
    "learning_rate": "optim.lr",
    "load_from": "init_from",
    "logging_steps": "log.every",
    "lr": "optim.lr",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "max_epochs": "budget.epochs",
    "max_grad_norm": "clip_norm",
    "max_len": "batch.seq_len",
    "max_length": "batch.seq_len",
    "max_seq_length": "batch.seq_len",
    "max_steps": "budget.steps",
    "mixed_precision": "precision",
    "model_name": "init_from",
    "model_name_or_path": "init_from",
    "n_embd": "model.hidden",
    "n_epochs": "budget.epochs",
    "n_head": "model.heads",
    "n_heads": "model.heads",
    "n_layer": "model.layers",
    "n_layers": "model.layers",
    "nproc": "runner.processes",
    "nproc_per_node": "runner.processes",
    "num_attention_heads": "model.heads",
    "num_epochs": "budget.epochs",
    "num_gpus": "runner.processes",
    "num_heads": "model.heads",
    "num_hidden_layers": "model.layers",
    "num_layers": "model.layers",
    "num_processes": "runner.processes",
    "num_train_epochs": "budget.epochs",
    "optimiser": "optim",
    "optimizer": "optim",
    "outdir": "run_dir",
    "output": "run_dir",
    "output_dir": "run_dir",
    "path": "data.path",
    "patience": "early_stop.patience",
    "per_device_train_batch_size": "batch.size",
    "pretrained": "init_from",
    "random_seed": "seed",
    "resume_from_checkpoint": "resume",
    "run_name": "name",
    "save_dir": "run_dir",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "scheduler": "schedule",
    "sequence_length": "batch.seq_len",
    "text_column": "data.text",
    "train_batch_size": "batch.size",
    "train_file": "data.path",
    "train_path": "data.path",
    "val_file": "data.valid_path",
    "validation_file": "data.valid_path",
    "vocab": "tokenizer.vocab_size",
    "vocab_size": "tokenizer.vocab_size",
    "warmup": "schedule.warmup",
    "warmup_ratio": "schedule.warmup",
    "warmup_steps": "schedule.warmup",
    "weight_decay": "optim.weight_decay",
    "world_size": "runner.processes",
}
"""Names of settings in other tools -> the key here."""

PLUGINS = {
    "hydra/launcher": {
        "joblib": "hydra.launcher.n_jobs=2 (a sweep's jobs at the same time, each in a process of its own)",
        "submitit": "runner=slurm (each job of a sweep is one of the cluster)",
    },
    "hydra/sweeper": dict.fromkeys(("optuna", "ax", "nevergrad"), "lmctl search"),
}
"""Plugins of Hydra by the beginning of their names, and what does the same here."""
FORMATS = {
    "export": {
        **dict.fromkeys(("safetensors", "huggingface", "transformers", "pytorch", "torch", "pt", "vllm"), "hf"),
        **dict.fromkeys(("ggml", "llama.cpp", "llama_cpp", "llamacpp", "ollama"), "gguf"),
        **dict.fromkeys(("onnxruntime", "ort", "optimum"), "onnx"),
    }
}
"""Options of a group by the names of what reads or writes them."""
WHOLE = {
    "bf16": "precision=bf16",
    "fp16": "precision=fp16",
    "fp32": "precision=fp32",
    "tf32": "precision=tf32",
    "int8": "precision=int8",
    "cpu": "runner=cpu",
    "no_cuda": "runner=cpu",
    "use_cpu": "runner=cpu",
    "gpu": "runner=gpu",
    "cuda": "runner=gpu",
    "load_in_8bit": "precision=int8_lora",
    "load_in_4bit": "precision=nf4_lora",
    "resume": "resume=auto",
    "compile": "compile=true",
    "torch_compile": "compile=true",
    "gradient_checkpointing": "gradient_checkpointing=true",
}
"""Flags of other tools -> the setting here."""


def flag(unknown: UnknownFlag, composer: Composer) -> ConfigError:
    """The error for an unknown flag such as `--lr 1e-3` or `--fp16`: settings here are key=value."""
    name, value = unknown.name.lstrip("-").replace("-", "_"), unknown.value
    if unknown.close is not None:
        return unknown
    if value is None and name in WHOLE:
        return ConfigError(str(unknown), f"settings are written without dashes: {WHOLE[name]}")
    if len(name) < 2:
        return ConfigError(str(unknown), "settings are written key=value, without dashes")
    key = _key(name, composer)
    meant = key if value is None or key not in composer.defaults else _choice(key, value, composer)
    example = meant if "=" in meant else f"{key}={'...' if value is None else value}"
    return ConfigError(str(unknown), f"settings are written key=value, without dashes: {example}")


def _key(name: str, composer: Composer) -> str:
    """The key that `--name` probably means: `epochs` is budget.epochs, `data_path` data.path; unchanged if unknown."""
    if (known := setting(name, composer)) is not None:
        return known
    if name in composer.schema.__dataclass_fields__ or name in composer.defaults:
        return name
    for word in (name, name.replace("_", ".", 1)):
        if keys := found(composer, word):
            return keys[0].name
    return name


def setting(key: str, composer: Composer) -> str | None:
    """The key here for a `key` of other tools; None if the verb has none."""
    for field in composer.schema.__dataclass_fields__.values():
        if key in field.metadata.get("aka", ()):
            return str(field.name)
    group, _, last = key.rpartition(".")
    known = WHOLE.get(key) or SETTINGS.get(key)
    if group and (within := SETTINGS.get(last, "")).startswith(f"{group}.") and within != key:  # `optim.learning_rate`
        known = within
    own = composer.schema.__dataclass_fields__
    if key in ("path", "model", "model_name", "model_name_or_path", "checkpoint") and "model_path" in own:
        return "model_path"
    if known is None or re.split(r"[.=]", known)[0] not in {*composer.defaults, *own}:
        return None
    value = composer.typed.text(key)
    return known if value is None or known not in composer.defaults else _choice(known, value, composer)


def _choice(group: str, value: str, composer: Composer) -> str:
    """The option of `group` that a value of another tool means: `device=cuda` is runner=gpu. The group, if unknown."""
    same = WHOLE.get(re.split(r"\W", value.lower())[0], "")  # cuda:0
    if same.startswith(f"{group}="):
        return same
    options = composer.options(group)
    if value not in options:
        if (instead := option(group, value)) is not None:
            return instead
        if group == "data":
            return f"data=hub {command_words.setting('data.path', value)}"
    close = nearest(value.lower(), options)
    return group if close is None else f"{group}={close}"


def lone_word(place: int, typed: list[str], composer: Composer) -> ConfigError:
    """The error for a word, given by its index, that is not `key=value`: `runs/x`, `fp16`, `train.yaml`, `model =
    bert_tiny`, `budget.steps:30`."""
    word, verb, own = typed[place], composer.verb, composer.schema.__dataclass_fields__
    after = typed[place + 1] if place + 1 < len(typed) else ""
    if after.startswith("="):  # `model = bert_tiny`, `model =bert_tiny`
        joined = "".join(typed[place : place + 2 + (after == "=")])
        return ConfigError(f"cannot read '{word}'", f"no spaces around the =: {joined}")
    if word.startswith("~"):
        return ConfigError(f"'{word}': nothing can be left out", f"choose another option or value: {word[1:]}=...")
    if (match := re.fullmatch(r"([A-Za-z_][\w.]*):\s*(\S+)", word)) is not None:
        return ConfigError(f"cannot read '{word}'", f"write {match[1]}={match[2]}")
    if word.lower() in WHOLE and "precision" in composer.defaults:
        return ConfigError(f"cannot read '{word}'", f"did you mean {WHOLE[word.lower()]}?")
    if word.endswith((".yaml", ".yml")):
        return ConfigError(f"cannot read '{word}'", f"to start from a config file write --from {word}")
    if "model_path" in own:
        begun = any(other.startswith("model_path=") or "=" not in other for other in typed[:place])
        rest = next((name for name in ("prompt", "file") if name in own), None)
        key = rest if begun else "model_path"
        if key is not None:
            return ConfigError(f"cannot read '{word}'", f"did you mean {command_words.setting(key, word)}?")
    if (groups := [group for group in composer.defaults if word in composer.options(group)]) != []:
        return ConfigError(f"cannot read '{word}'", f"did you mean {groups[0]}={word}?")
    if "model_path" in own and Path(word).exists():
        return ConfigError(
            f"cannot read '{word}'", f"lmctl {verb.name} takes one model; a setting is written key=value"
        )
    if "only" in own and word.isidentifier():
        return ConfigError(f"cannot read '{word}'", f"did you mean only=[{word}]?")
    if Path(word).exists() and verb.alone is not None:
        return ConfigError(f"cannot read '{word}'", verb.alone.format(word))
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", word):
        return ConfigError(f"cannot read '{word}'", f"a setting is written key=value: {word}=...")
    known = [*composer.defaults, *own]
    close = nearest(word, known)
    if close:
        return ConfigError(f"cannot read '{word}'", f"a setting is written key=value: {close}=...")
    return ConfigError(
        f"cannot read '{word}'",
        "an override looks like key=value; quote what has commas, spaces or brackets: 'key=\"a, b\"'",
    )


def option(group: str, name: str) -> str | None:
    """A suggestion for a model id or a path in the place of an option: `model=bert-base-uncased`, `data=corpus/`."""
    if group == "data" and name:
        suffix = Path(name).suffix
        kind = {".csv": "table", ".tsv": "table", ".parquet": "table", ".jsonl": "jsonl"}.get(suffix, "text")
        if suffix or Path(name).expanduser().exists() or name.startswith(("/", "./", "../", "~")):
            return f"data={kind} {command_words.setting('data.path', name)}"
        if "/" in name:
            return f"data=hub {command_words.setting('data.path', name)}"
    if group == "model" and re.search(r"[-/]", name):
        return command_words.setting("init_from", name)
    if group == "tokenizer" and re.search(r"[-/]", name):
        return f"tokenizer=pretrained {command_words.setting('tokenizer.path', name)}"
    if group in FORMATS:
        same = FORMATS[group].get(name.lower().lstrip("."))
        return None if same is None else f"{group}={same}"
    plugins = PLUGINS.get(group, {})
    close = next(filter(name.startswith, plugins), None) or nearest(name, plugins)
    return None if close is None else plugins[close]
