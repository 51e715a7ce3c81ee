"""Whatever stands on a command line: it is composed or refused in words, nothing hangs, and nothing is written."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lmctl.cli.application import Application
from lmctl.cli.explain import explain
from lmctl.cli.main import VERBS
from lmctl.config.build import check

KEYS = """name run_dir seed model data mix optim.lr budget.steps budget batch.size data.path data.label teacher
init_from tokenizer.path mix.tasks.corpus.weight mix.tasks.corpus.data.path precision stages stages.a.seed trusted
resume prompt model_path file out rows suite split prefix hydra hydra.run.dir hydra/launcher hydra.launcher.n_jobs
data@x recipe x objective@mix.tasks.corpus.objective augment.there eval.rows cache_dir 名字 _target_ model._target_
"""
VALUES = r"""1 -1 0 1e5 1e999 nan inf -inf null true on 2024_01 1:30 0x1f 99999999999999999999999 a a,b a,b,c [a] [1,2
{a:1} {} [[0,1],[1,2]] ${x} ${name} ${ $x ${oc.env:HOME} ${oc.env:NOPE} 'a "b ' " '' '"' "a,b" \ a\ \$ ~ ~/x ~nobody/x
/dev/null a=b a:b @ : + ++ ~~ ( ) f(x) choice(1,2) range(1,3) glob(*) interval(0,1) sort(3,1) int(3) 北京 “x” １
x，seed=2 ＝ ； 🙂 ??? * % & | ; # !x text jsonl table bert_tiny gpt2_tiny mlm clm
none pretrained hub ../x auto false . .. 1. .5
teacher_layers back_translate gpu ddp fp16 int8 e5""".split()  # noqa: SIM905
VALUES += ["\u202e", "\ufeff", "\x85", "\u2028", "\x1b[0m"]
MARKS = [*[""] * 5, *"+ ++ ~ - -- @ : = . .. [ { ' “".split(), " ", "\n", "\t", '"']  # noqa: SIM905
FLAGS = ["--cfg", "--from", "--config-dir", "-m", "--resume", "--info", "-c", "-x", "--", "-", "", "=", "==x", "\n"]


def words(draw: random.Random) -> list[str]:
    """A command line: most of it looks like settings, some of it like nothing at all."""
    found = []
    for _ in range(draw.randrange(1, 5)):
        kind = draw.random()
        if kind < 0.08:
            found.append(draw.choice(FLAGS))
        elif kind < 0.16:
            found.append("".join(draw.choice([*MARKS, *VALUES]) for _ in range(draw.randrange(1, 5))))
        else:
            key = draw.choice(MARKS[:9]) + draw.choice(KEYS.split())
            value = "".join(draw.choice([*VALUES, *MARKS]) for _ in range(draw.choice([1, 1, 1, 2, 3])))
            found.append(f"{key}={value}" if draw.random() < 0.95 else key + value)
    return found


def tried(verb: str, line: list[str]) -> None:
    """Do all that is done before the verb begins; any error must be one that has words for it."""
    application = None
    try:
        application = Application(verb, line)
        if application.arguments.has("--multirun"):
            application._check_sweep()
        else:
            application._resumed_config()
            application._name_run()
            check(application.settled(), application.composer.schema)
    except SystemExit:
        pass
    except Exception as error:
        known = explain(error, application.composer if application else None)
        if known is None or not str(known).strip():
            pytest.fail(f"no words for {error!r}: lmctl {verb} {line}")


@contextmanager
def empty_folder() -> Iterator[Path]:
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def some(count: int, seed: int) -> None:
    draw = random.Random(seed)
    verbs = [verb for verb in VERBS if verb != "list"]
    with empty_folder() as folder:
        for _ in range(count):
            verb, line = draw.choice(verbs), words(draw)
            began = time.monotonic()
            tried(verb, line)
            assert time.monotonic() - began < 60, (verb, line)
            assert list(folder.iterdir()) == [], (verb, line)


def test_a_few_command_lines():
    some(15, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
def test_twenty_thousand_command_lines(seed: int):
    some(1000, seed)
