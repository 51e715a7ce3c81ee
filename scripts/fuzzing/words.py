"""Command lines, configs that were saved and edited, and requests for help. Everything before a verb begins is done."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from random import Random

from lmctl.cli.application import Application
from lmctl.cli.explain import explain
from lmctl.cli.main import main
from lmctl.cli.sweep_check import checked_sweep
from lmctl.config import described
from lmctl.config.compose import Composer, conf_dir
from lmctl.config.verb import names

KEYS = """name run_dir seed model data mix optim.lr budget.steps budget batch.size data.path data.label teacher
init_from tokenizer.path mix.tasks.corpus.weight mix.tasks.corpus.data.path precision stages stages.a.seed trusted
resume prompt model_path file out rows suite split prefix hydra hydra.run.dir hydra/launcher hydra.launcher.n_jobs
data@x recipe x objective@mix.tasks.corpus.objective augment.there eval.rows cache_dir 名字 _target_ model._target_
format quantize task text on_bad_row student distill adversary compression runner runner.processes batch.tokens
temperature beams labels mode dev measure early_stop schedule mix.sampling mix.tasks tokenizer optim
""".split()  # noqa: SIM905
VALUES = r"""1 -1 0 1e5 1e999 nan inf -inf null true on 2024_01 1:30 0x1f 99999999999999999999999 a a,b a,b,c [a] [1,2
{a:1} {} [[0,1],[1,2]] ${x} ${name} ${ $x ${oc.env:HOME} ${oc.env:NOPE} 'a "b ' " '' '"' "a,b" \ a\ \$ ~ ~/x ~nobody/x
/dev/null a=b a:b @ : + ++ ~~ ( ) f(x) choice(1,2) range(1,3) glob(*) interval(0,1) sort(3,1) int(3) 北京 “x” １
x，seed=2 ＝ ； 🙂 ??? * % & | ; # !x text jsonl table bert_tiny gpt2_tiny mlm clm
none pretrained hub ../x auto false . .. 1. .5
teacher_layers back_translate gpu ddp fp16 int8 e5""".split()  # noqa: SIM905
VALUES += ["\u202e", "\ufeff", "\x85", "\u2028", "\x1b[0m", "a" * 300, "[" * 60, "x." * 40]
MARKS = [*[""] * 5, *"+ ++ ~ - -- @ : = . .. [ { ' “".split(), " ", "\n", "\t", '"']  # noqa: SIM905
FLAGS = ["--cfg", "--from", "--config-dir", "-m", "--resume", "--info", "-c", "-x", "--", "-", "", "=", "==x", "\n"]
GOOD = """train mix=classify data=table data.path=train.tsv data.text=sentence data.label=label
train mix=pairs data=table data.path=pairs.tsv data.text=text_a data.text_b=text_b data.label=label
train mix=translate data=parallel data.source=train.en data.target=train.de model=transformer_mt batch.tokens=4096
train mix=multitask data@mix.tasks.topics.data=table mix.tasks.topics.data.path=t.tsv mix.tasks.topics.data.label=y
train mix=clm data=hub data.path=allenai/c4 data.config=en data.streaming=true model=gpt2_mini
train precision=fp16 mix=mlm_nsp optim.lr=3e-4 schedule=constant seed=3
train -m precision=fp32,bf16,fp16 seed=1,2
plan runner=ddp runner.processes=2 compression=topk_int8 compression.density=0.01
eval model_path=gpt2 suite=perplexity data=text data.path=test.txt
predict model_path=runs/x file=new.csv format=csv out=labelled.csv
train recipe=pretrain_finetune name=both stages.finetune.optim.lr=1e-4
train init_from=runs/pretrained mix=classify name=tuned optim.lr=3e-4
distill teacher=runs/big name=small budget.steps=20
generate model_path=gpt2 prompt=once temperature=0.8 top_p=0.9 max_new_tokens=20
generate model_path=bert prompt=[MASK] top_k=3
translate model_path=runs/mt beams=4 file=a.txt
score model_path=gpt2 file=lists.jsonl mode=nbest dev=dev.jsonl out=best.txt
peek augment=char_noise data=text data.path=x rows=3
prepare data=jsonl data.path=t.jsonl tokenizer=bpe tokenizer.vocab_size=2000""".splitlines()
VERBS = sorted(names())
FEW = [verb for verb in VERBS if verb != "list"]
SAVED = """name: x
seed: 1
budget: {steps: 3}
precision: {_target_: lmctl.precision.fp32.Fp32}
data:
  _target_: lmctl.data.text.TextFiles
  path: "x y"
batch:
  size: 8
  seq_len: 32
trusted: []
eval:
  rows: 8
"""
YAML = ["", " ", "  ", ":", "- ", "[", "{", "}", "]", "&a ", "*a", "!!python/object:os.system ", "!x ", "? ", "| ", "#",
        "null", "${x}", "${", "???", "<<: ", "\t", "\0", "é", "\ufeff", "%YAML 9\n", "---\n", "1e999", "'", '"',
        "defaults: [x]\n", "_target_: os.system\n", "# @package x\n", "seed: 1\n", "9" * 500, "[" * 300]  # fmt: skip


@cache
def shared(verb: str, group: str, option: str) -> list[described.Described]:
    """The keys of an option, which hints look through; no command line changes those of lmctl's own."""
    return KEYS_OF(Composer(verb), group, option)


KEYS_OF = described.option_keys
described.option_keys = lambda composer, *option: (
    shared(composer.verb.name, *option) if composer.config_dir is None else KEYS_OF(composer, *option)
)


def words(draw: Random, folder: Path) -> None:
    """A command line, most of which looks like settings, or a good one with one thing wrong."""
    composed(*line(draw), folder)


def configs(draw: Random, folder: Path) -> None:
    """A config that was saved and then edited, or an option in a folder of the user's own."""
    more = [] if draw.random() < 0.6 else [draw.choice(["seed=2", "name=y", "optim=sgd", "mix=clm", "model=gpt2_tiny"])]
    if draw.random() < 0.5:
        Path(folder, "saved.yaml").write_bytes(edited(draw, SAVED))
        composed(draw.choice(["train", "train", "train", "plan", "prepare", "eval"]), ["--from", "saved.yaml", *more])
        return
    file = draw.choice([file for group in ("optim", "mix", "data", "model", "recipe", "augment", "precision")
                        for file in sorted((conf_dir() / group).glob("*.yaml"))])  # fmt: skip
    verb, group = draw.choice(["train", "plan"]), file.parent.name
    if draw.random() < 0.1:  # the config itself
        file, group = conf_dir() / f"{verb}.yaml", "."
    Path(folder, "own", group).mkdir(parents=True)
    Path(folder, "own", group, "mine.yaml").write_bytes(edited(draw, file.read_text(encoding="utf-8")))
    chosen = ["--config-name", "mine"] if group == "." else [f"{group}=mine"]
    composed(verb, ["--config-dir", "own", *chosen, *more])


def edited(draw: Random, text: str) -> bytes:
    """YAML with a few accidents, or nothing but accidents."""
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3])):
        begin = draw.randrange(len(text) + 1)
        end = min(len(text), begin + draw.choice([0, 0, 1, 2, 8]))
        text = text[:begin] + draw.choice(YAML) + text[end:]
    if draw.random() < 0.05:
        text = "".join(draw.choices(YAML, k=6))
    return text.encode() if draw.random() < 0.95 else text.encode()[: draw.randrange(60)] + b"\xff\xfe"


def help(draw: Random, folder: Path) -> None:
    """`list`, `VERB --help WORD`, completion, and verbs that there are not: all that only prints."""
    word = draw.choice([*KEYS, *VALUES, *VERBS, *FLAGS])
    other = draw.choice([*KEYS, *VALUES, *line(draw)[1]])
    verb = draw.choice([*VERBS, word])
    how = draw.randrange(5)
    if how == 0:
        argv = ["list", *draw.choice([[word], [word, other], [word, "format=json"]])]
    elif how in (1, 2):
        argv = [draw.choice(list(VERBS)), "--help", *draw.choice([[word], [f"{word}={other}"], [word, other]])]
    elif how == 3:
        argv = [f"{verb}{draw.choice(MARKS)}", *draw.choice([["--help"], ["--version"]])]
        if argv[0] in VERBS:
            argv = [argv[0], "--help"]
    else:
        os.environ["COMP_LINE"] = f"lmctl {draw.choice(list(VERBS))} {word.strip(chr(10))}{draw.choice(MARKS)}"
        argv = ["-sc", "query=bash"]
    code = main(argv)
    assert 0 <= code <= 6, f"exit code {code} of lmctl {argv}"


def line(draw: Random) -> tuple[str, list[str]]:
    """A verb and the words behind it."""
    if draw.random() < 0.4:
        verb, *good = draw.choice(GOOD).split()
        return verb, changed(draw, good)
    found = []
    for _ in range(draw.randrange(1, 5)):
        kind = draw.random()
        if kind < 0.08:
            found.append(draw.choice(FLAGS))
        elif kind < 0.16:
            found.append("".join(draw.choice([*MARKS, *VALUES]) for _ in range(draw.randrange(1, 5))))
        else:
            key = draw.choice(MARKS[:9]) + draw.choice(KEYS)
            value = "".join(draw.choice([*VALUES, *MARKS]) for _ in range(draw.choice([1, 1, 1, 2, 3])))
            found.append(f"{key}={value}" if draw.random() < 0.95 else key + value)
    return draw.choice(FEW), found


def changed(draw: Random, good: list[str]) -> list[str]:
    """A good line with a word or a character lost, doubled, added or exchanged."""
    for _ in range(draw.choice([0, 0, 1, 1, 2])):
        place = draw.randrange(len(good))
        word = good[place]
        at = draw.randrange(len(word) + 1)
        other = draw.choice([*VALUES, *MARKS])
        good[place : place + 1] = draw.choice(
            [
                [],
                [word, word],
                [word[:at] + word[at + 1 :]],
                [word[:at] + other + word[at:]],
                [f"{word.partition('=')[0]}={other}"],
                [f"{draw.choice(KEYS)}={word.partition('=')[2]}"],
                [word[:at], word[at:]],
            ]
        )
        if not good:
            return [""]
    return good


def composed(verb: str, given: list[str], folder: Path | None = None) -> None:
    """Do all that is done before the verb begins; raises the error in words, if there are any for it."""
    application = None
    try:
        application = Application(verb, list(given))
        if application.arguments.has("--multirun"):
            checked_sweep(application)
        else:
            application._resumed_config()
            if (file := application.arguments.flags.get("--from")) is not None:
                application.composer.start_from(file, application.overrides)
            application._name_run()
            application.verb.check(application.final_config())
    except Exception as error:
        known = explain(error, application.composer if application else None)
        if known is None or not str(known).strip():
            raise AssertionError(f"no words for {error!r}: lmctl {verb} {given}") from error
        raise known from None
    finally:
        assert folder is None or not list(folder.iterdir()), f"something was written: lmctl {verb} {given}"
