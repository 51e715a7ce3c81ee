"""`lmctl VERB --help`: groups with their options, its keys, and examples, all read from the config itself."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from lmctl.config.compose import Composer

PURPOSE = {
    "train": "Pre-train or fine-tune a model. Ctrl-C saves and stops; resume=auto goes on.",
    "distill": "Train a small model from a big one; the same model without a teacher shows what was gained.",
    "plan": "Say whether a run, or with -m a grid, is legal, and its cost in memory and traffic; nothing is run.",
    "prepare": "Train the tokenizer, build the token cache, and print a card of both.",
    "peek": "Show examples as the model will see them: pieces, masks and targets.",
    "eval": "Measure how good a model is on held-out text, rows or files; any Hugging Face model will do.",
    "generate": "Continue prompts (decoders, recurrent and seq2seq models), or fill their masks (encoders).",
    "translate": "Translate lines, from a file or standard input to standard output, line for line.",
    "predict": "Label new texts, pairs or rows: classes with their probabilities, or numbers, row for row.",
    "score": "Log-probabilities of lines, good/bad pairs, and rescoring of n-best lists of speech recognition.",
}
EXAMPLES = {
    "train": [
        "lmctl train budget.minutes=2",
        "lmctl train data=text data.path=corpus/ model=bert_mini precision=bf16 name=mine",
        "lmctl train -m precision=fp32,bf16 seed=1,2,3",
    ],
    "distill": [
        "lmctl distill teacher=runs/big model=bert_tiny",
        "lmctl distill teacher=runs/big distill=[logits,hidden] distill.terms.logits.temperature=4",
        "lmctl distill -m teacher=runs/big distill=logits,minilm,tinybert",
    ],
    "plan": [
        "lmctl plan data=text data.path=corpus/ model=bert_mini batch.size=256 batch.micro=32",
        "lmctl plan -m precision=fp32,bf16 model=bert_base batch.size=256",
        "lmctl plan runner=ddp runner.processes=2 measure=true out=plan.json",
    ],
    "prepare": [
        "lmctl prepare",
        "lmctl prepare data=text data.path=corpus/ tokenizer=bpe",
        "lmctl prepare -m tokenizer.vocab_size=4096,8192",
    ],
    "peek": [
        "lmctl peek",
        "lmctl peek mix=mlm rows=5",
        "lmctl peek data=text data.path=corpus/ split=valid",
    ],
    "eval": [
        "lmctl eval model_path=runs/mine",
        "lmctl eval model_path=runs/mine suite=perplexity data=text data.path=test.txt",
        "lmctl eval model_path=gpt2 suite=minimal_pairs file=pairs.tsv",
    ],
    "generate": [
        'lmctl generate model_path=runs/mine prompt="The [MASK] statement"',
        'lmctl generate model_path=runs/mine prompt="The file" do_sample=true top_p=0.9 seed=7',
        "lmctl generate model_path=bert-base-uncased < prompts.txt",
    ],
    "translate": [
        "lmctl translate model_path=runs/mt < source.en",
        "lmctl translate model_path=runs/mt file=source.en beams=10 length_penalty=0.6",
        "lmctl translate model_path=Helsinki-NLP/opus-mt-en-de file=source.en",
    ],
    "predict": [
        "lmctl predict model_path=runs/tuned file=new.csv text=review format=csv out=labelled.csv",
        "lmctl predict model_path=runs/tuned format=json < lines.txt",
        "lmctl predict model_path=runs/multitask task=topics file=new.jsonl on_bad_row=skip",
    ],
    "score": [
        "lmctl score model_path=runs/mine file=sentences.txt",
        "lmctl score model_path=runs/mine mode=pairs file=pairs.tsv",
        "lmctl score model_path=runs/mine mode=nbest dev=dev.jsonl file=test.jsonl",
    ],
}
FLAGS = (
    ("-m", "sweep: key=a,b runs every combination, each in a process of its own"),
    ("--cfg job", "print the composed config instead of running it"),
    ("--config-dir DIR", "a folder with config groups of your own"),
    ("--from FILE", "start from the config.yaml of an earlier run; group=option and key=value go on top"),
)
GRID = ("-m", "grid: key=a,b plans every combination, all in one table")
WIDEST = 100
KINDS = {int: "int", float: "float", bool: "bool", str: "text", NoneType: "null"}


def verb_help(composer: Composer) -> str:
    """The whole help text of one verb."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    verb = composer.verb
    lines = [f"usage: lmctl {verb} [group=option ...] [key=value ...] [flags]", "", PURPOSE[verb], ""]
    for group, default in composer.defaults.items():
        lines.append(f"{group}=" + (f"   default {default}" if default else ""))
        lines += table([(option, composer.describe(group, option)) for option in composer.options(group)], width)
    lines += ["", "keys"]
    rows = list(key_rows(composer.schema, composer.compose([])))
    wide = [max(len(row[column]) for row in rows) for column in (0, 1, 2)]
    lines += table([("  ".join(f"{row[c]:<{wide[c]}}" for c in (0, 1, 2)), row[3]) for row in rows], width)
    flags = FLAGS if any(field.name == "run_dir" for field in fields(composer.schema)) else FLAGS[:-1]
    flags = (GRID, *flags[1:]) if verb == "plan" else flags
    lines += ["", "flags", *table(flags, width)]
    lines += ["", "examples", *(f"  {example}" for example in EXAMPLES[verb])]
    lines += ["", f"lmctl list GROUP shows any group, lmctl {verb} group=option --cfg job an option's own keys."]
    return "\n".join(lines)


def table(rows: Any, width: int) -> list[str]:
    """Two columns, the second one wrapped below itself."""
    left = max((len(name) for name, _ in rows), default=0)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - left - 4)) or [""]
        lines.append(f"  {name:<{left}}  {wrapped[0]}".rstrip())
        lines += [f"  {'':<{left}}  {line}" for line in wrapped[1:]]
    return lines


def key_rows(schema: type[Any], node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default as composed, help) of every key that is not a config group."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from key_rows(hint, node[field.name], f"{prefix}{field.name}.")  # type: ignore[arg-type]
        elif hint is not Any:
            yield f"{prefix}{field.name}", kind(hint), _default(node, field), str(field.metadata.get("help", ""))


def kind(hint: Any) -> str:
    """A type as one would say it: `int or null`."""
    if get_origin(hint) in (list, dict):
        return {list: "list", dict: "mapping"}[get_origin(hint)]
    if options := get_args(hint):
        return " or ".join(KINDS.get(option, str(option)) for option in options)
    return KINDS.get(hint, getattr(hint, "__name__", str(hint)))


def _default(node: DictConfig, field: Field[Any]) -> str:
    if OmegaConf.is_missing(node, field.name):
        return "required"
    value = OmegaConf.to_container(node, resolve=False)[field.name]  # type: ignore[index,call-overload]
    return value if isinstance(value, str) else json.dumps(value)
