"""`lmctl VERB --help`: groups with their options, its keys, and examples, all read from the config itself."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

from lmctl.config.compose import Composer
from lmctl.config.described import Described, component_groups, found, option_keys, own_keys
from lmctl.config.groups import Run
from lmctl.config.table import purposes
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import nearest

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
GROUPS = {
    **purposes(Run),
    "objective": "what is predicted from what",
    "quantize": "weights of a finished model in fewer bits",
    "recipe": "settings that reproduce a known result",
}
"""The config groups in a few words."""
WIDEST = 100
LONGEST_DEFAULT = 32

MOST_SET = {
    "train": (
        "data.path", "model", "mix", "precision", "budget.minutes", "batch.size", "batch.seq_len", "optim.lr", "name",
        "init_from",
    ),
    "distill": (
        "teacher", "model", "distill", "data.path", "distill.hard", "budget.steps", "batch.size", "optim.lr", "name",
        "student.from_teacher",
    ),
    "plan": (
        "model", "mix", "precision", "batch.size", "batch.micro", "batch.seq_len", "runner", "measure", "out",
        "gradient_checkpointing",
    ),
    "prepare": ("data.path", "tokenizer", "tokenizer.vocab_size", "mix", "batch.seq_len", "cache_dir"),
    "peek": ("data.path", "mix", "rows", "split", "tokenizer", "batch.seq_len", "seed"),
    "eval": ("model_path", "suite", "data.path", "file", "rows", "batch", "precision", "quantize", "out", "seed"),
    "generate": (
        "model_path", "prompt", "file", "max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "batch",
        "seed",
    ),
    "predict": ("model_path", "file", "text", "text_b", "format", "out", "task", "on_bad_row", "batch"),
    "translate": ("model_path", "file", "beams", "length_penalty", "max_new_tokens", "prefix", "batch"),
    "score": ("model_path", "file", "mode", "dev", "batch", "seq_len"),
}  # fmt: skip
"""The keys that people set most, at most ten a verb: the first thing that its help shows."""


def verb_help(composer: Composer) -> str:
    """The whole help text of one verb."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    verb = composer.verb
    lines = [f"usage: lmctl {verb} [group=option ...] [key=value ...] [flags]", "", PURPOSE[verb], ""]
    lines += ["what people set most", *table(list(_most_set(composer)), width)]
    lines += ["", "examples", *(f"  {example}" for example in EXAMPLES[verb]), ""]
    lines += ["more", *table([(f"lmctl {verb} --help {word}", what) for word, what in _more(composer)], width), ""]
    for group, default in composer.defaults.items():
        lines.append(f"{group}=" + (f"   default {default}" if default else ""))
        lines += table([(option, composer.describe(group, option)) for option in composer.options(group)], width)
    lines += ["", "keys"]
    lines += key_table(own_keys(composer), width)
    flags = FLAGS if any(field.name == "run_dir" for field in fields(composer.schema)) else FLAGS[:-1]
    flags = (GRID, *flags[1:]) if verb == "plan" else flags
    lines += ["", "flags", *table(flags, width)]
    return "\n".join(lines)


def _more(composer: Composer) -> Iterator[tuple[str, str]]:
    """What `--help WORD` takes, with words that this verb knows."""
    group = "optim" if "optim" in composer.defaults else next(iter(composer.defaults))
    key = "optim.lr, --help budget" if group == "optim" else own_keys(composer)[0].name
    yield "GROUP", f"options of a group and their keys, as --help {group}"
    yield "GROUP=OPTION", f"the keys of one option, as --help {group}={composer.options(group)[-1]}"
    yield "KEY", f"one key or section, as --help {key}"


def _most_set(composer: Composer) -> Iterator[tuple[str, str]]:
    """The keys of MOST_SET with what they are for."""
    known = {key.name: key for key in own_keys(composer)}
    for group in {name.partition(".")[0] for name in MOST_SET[composer.verb] if "." in name} & set(composer.defaults):
        option = "text" if group == "data" else composer.defaults[group]
        known |= {key.name: key for key in option_keys(composer, group, str(option))}
    for name in MOST_SET[composer.verb]:
        if name in composer.defaults:
            default = composer.defaults[name]
            options = f"{len(composer.options(name))} options" + (f", default {default}" if default else "")
            yield f"{name}=", f"{GROUPS[name]}: {options}"
        else:
            yield f"{name}=", known[name].purpose


def topic_help(composer: Composer, word: str) -> str:
    """What `--help WORD` prints: a group, an option, a key, a section of keys. ConfigError if there is nothing of that
    name."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    group, _, option = word.replace("=", ".", 1).partition(".")
    if group in composer.all_groups and option in ("", *composer.options(group)):
        return "\n".join(_option(composer, group, option, width) if option else _group(composer, group, width))
    keys = found(composer, word.rstrip(".=")) or found(composer, word.partition("=")[0])  # `lr=3` is about `lr`
    if not keys:
        raise _no_topic(composer, word)
    return "\n".join(_keys(keys, width))


def _group(composer: Composer, group: str, width: int) -> list[str]:
    default = composer.defaults.get(group)
    lines = [f"{group}=" + (f"   default {default}" if default else "") + f"   {GROUPS.get(group, '')}".rstrip()]
    lines += table([(option, composer.describe(group, option)) for option in composer.options(group)], width)
    shown = default or next(iter(composer.options(group)), None)
    if shown is not None:
        lines += ["", *_option(composer, group, shown, width)]
        lines += ["", f"keys of another: --help {group}=OPTION"]
    return lines


def _option(composer: Composer, group: str, option: str, width: int) -> list[str]:
    keys = option_keys(composer, group, option)
    return [f"{group}={option}   {composer.describe(group, option)}", *key_table(keys, width)]


def _keys(keys: list[Described], width: int) -> list[str]:
    """Keys that several options have in the same words are shown once."""
    options: dict[Described, list[str]] = {}
    for key in keys:
        options.setdefault(replace(key, option=""), []).append(key.option)
    shown = []
    for key, having in options.items():
        where = f" ({key.name.partition('.')[0]}={', '.join(filter(None, having))})" if any(having) else ""
        shown.append(replace(key, purpose=f"{key.purpose}{where}".strip()))
    return key_table(shown, width)


def _no_topic(composer: Composer, word: str) -> ConfigError:
    names = [*composer.all_groups, *(key.name for key in own_keys(composer))]
    group, equals, option = word.partition("=")
    if equals and group in composer.all_groups:
        raise composer.no_option(group, option, group)
    group = word.partition(".")[0]
    for known in [group] if group in component_groups(composer) else component_groups(composer):
        names += [f"{known}.{option}" for option in composer.options(known)]
        if (default := composer.defaults.get(known)) is not None:
            names += [f"{known}.{key.key}" for key in composer.keys(known, default)]  # composing takes longer
    close = nearest(word, names) or nearest(word, [name.rpartition(".")[2] for name in names])
    hint = f"; did you mean {close}?" if close else ""
    return ConfigError(f"--help {word}: no group, option or key of that name{hint}", f"lmctl {composer.verb} --help")


def key_table(keys: Iterable[Described], width: int) -> list[str]:
    """Key, type, default and purpose; a default that is long is cut, `--cfg job` shows it whole."""
    rows = [(key.name, key.kind, _short(key.default), key.purpose) for key in keys]
    wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1, 2)]
    heads = ["  ".join(f"{row[c]:<{wide[c]}}" for c in (0, 1, 2)) for row in rows]
    if sum(wide) + 6 <= width * 2 // 3:
        return table([(head, row[3]) for head, row in zip(heads, rows, strict=True)], width)
    lines = []
    for head, row in zip(heads, rows, strict=True):  # names are too long for what they are for to stand beside them
        lines += [f"  {head}".rstrip(), *(f"      {line}" for line in textwrap.wrap(row[3], width - 6))]
    return lines


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_DEFAULT else f"{text[: LONGEST_DEFAULT - 3]}..."


def table(rows: Any, width: int) -> list[str]:
    """Two columns, the second one wrapped below itself."""
    left = max((len(name) for name, _ in rows), default=0)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - left - 4)) or [""]
        lines.append(f"  {name:<{left}}  {wrapped[0]}".rstrip())
        lines += [f"  {'':<{left}}  {line}" for line in wrapped[1:]]
    return lines
