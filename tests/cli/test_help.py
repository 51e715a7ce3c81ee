"""Help is complete, fits the terminal, and answers without loading torch."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT

from lmctl import __version__
from lmctl.cli.application import Application
from lmctl.cli.main import main
from lmctl.config.compose import Composer
from lmctl.config.described import option_keys, own_keys
from lmctl.config.verb import SearchVerb, names, summary, verbs
from lmctl.core.columns import table


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_usage_names_every_verb(word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = printed(capsys, word)
    assert text.index("  train ") < text.index("  plan ") < text.index("  list ")
    for name in names():
        assert summary(name)
        assert f"  {name:<9}  {summary(name)}\n" in text


def test_no_verb_is_a_mistake_and_there_is_a_version(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "usage: lmctl VERB" in capsys.readouterr().out
    assert printed(capsys, "--version") == f"lmctl {__version__}\n"


@pytest.mark.parametrize("verb", verbs())
def test_verb_help(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = printed(capsys, verb, "--help")
    composer = Composer(verb)
    assert text.startswith(f"usage: lmctl {verb} [group=option ...] [key=value ...] [flags]\n")
    own = own_keys(composer)
    assert [key.name for key in own if not key.purpose or key.name.rpartition(".")[2] not in text] == []
    for group, default in composer.defaults.items():
        assert f"\n{group}={f'   default {default}' if default else ''}\n" in text
        assert all(f"\n  {option} " in text for option in composer.options(group))
    assert all(f"\n  {example}\n" in text for example in verbs()[verb].examples)
    assert max(map(len, text.splitlines())) <= 100
    screen = text.splitlines()[:40]  # the first one has what people set most
    first, last = screen.index("what people set most") + 1, screen.index("examples") - 1
    keys = [line for line in screen[first:last] if line.startswith("  ") and line[2] != " "]
    assert min(5, len(own)) <= len(keys) <= 10
    assert all(len(line.split(maxsplit=1)) == 2 for line in keys)
    words = re.findall(r", as --help ([\w.=]+)", " ".join(text.split()))
    assert len(words) == (3 if composer.defaults else 1)
    assert all(printed(capsys, verb, "--help", word) for word in words)


@pytest.mark.parametrize("verb", verbs())
def test_examples_are_right(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each example composes; those for a shell are cut at what the shell would take away."""
    monkeypatch.chdir(tmp_path)
    assert len(verbs()[verb].examples) == 3
    for example in verbs()[verb].examples:
        words = shlex.split(example.partition(" < ")[0])
        assert words[:2] == ["lmctl", verb]
        if "-m" in words or isinstance(verbs()[verb], SearchVerb):
            swept = [word for word in words[2:] if word != "-m"]
            for sample in Composer(verb).sweep_configs(swept)[1]:
                Composer(verb).task(sample)
        else:
            application = Application(verb, words[2:])
            application.composer.task(application.overrides.render())


GROUPS = [group for group in Composer("train").all_groups if group != "recipe"]


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_every_option_says_what_it_is_for(group: str):
    composer = Composer({"quantize": "eval", "export": "export"}.get(group, "train"))
    for option in composer.options(group):
        keys = option_keys(composer, group, option)
        assert [key.name for key in keys if not key.purpose] == [], option
        assert all(key.name.startswith(f"{group}.") and key.option == option for key in keys)


@pytest.mark.parametrize(
    ("word", "lines"),
    [
        ("optim", ["optim=   default adamw   update rule", "sgd Stochastic gradient descent, plain or with momentum",
                   "optim.lr float 0.0015 peak learning rate; `schedule` shapes it"]),
        ("optim=sgd", ["optim.momentum float 0.0 share of the last step that goes on; 0: none"]),
        ("data.table", ["data.label text or null null column with the label: rows are then labelled"]),
        ("optim.lr", ["optim.lr float 1.0 peak learning rate; `schedule` shapes it (optim=sgd)"]),
        ("lr", ["optim.lr float 0.0015 peak learning rate; `schedule` shapes it (optim=adamw, adamw8bit, muon)"]),
        ("budget", ["budget.minutes float or null null wall-clock minutes of training"]),
        ("budget.steps", ["budget.steps int or null null optimiser steps; null: 3600 if nothing else limits the run"]),
        ("mask_rate", ["mix.tasks.corpus.objective.mask_rate any 0.15"]),
        ("compression.quantise.block", ["compression.quantise.block int 64"]),
        ("recipe.sst2", ["data.label any label", "batch.size any 32"]),
        ("lr=3", ["optim.lr float 0.0015 peak learning rate"]),
        ("quantize", ["int8_dynamic int8 weights and int8 products in linear layers"]),
    ],
)  # fmt: skip
def test_help_on_a_word(word: str, lines: list[str], capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = printed(capsys, "train", "--help", word)
    assert "usage" not in text
    evened = " ".join(text.split())
    for line in lines:
        assert " ".join(line.split()) in evened


def test_help_on_a_word_is_there_in_every_order(capsys: pytest.CaptureFixture[str]):
    assert printed(capsys, "list", "precision").startswith("precision (default fp32)\n  auto  ")
    wanted = printed(capsys, "train", "--help", "model=bert_mini")
    assert wanted == printed(capsys, "train", "model=bert_mini", "--help")
    assert printed(capsys, "list", "model.bert_mini") == wanted
    assert printed(capsys, "help", "train") == printed(capsys, "train", "--help")


def test_table_wraps_below_its_own_column():
    assert table([("a", "one two three four five"), ("long", "")], 20) == [
        "  a     one two three four",
        "        five",
        "  long",
    ]


def test_options_of_ones_own_appear_in_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "zigzag.yaml").write_text("# Up and down\n_target_: mine.Zigzag\n")
    text = printed(capsys, "train", "--help", "--config-dir", str(tmp_path))
    assert re.search(r"^  zigzag +Up and down$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("lmctl ", " ".join(names())),
        ("lmctl pe", "peek"),
        ("lmctl train precision=fp1", "precision=fp16"),
        ("lmctl list pre", ""),
    ],
)  # fmt: skip
def test_completion(line: str, completions: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMP_LINE", line)
    assert printed(capsys, "-sc", "query=bash").strip() == completions


QUICK = [
    *("--help", "train --help", "train --help optim.lr", "list", "list optim.adamw", "list format=json"),
    *("train precision=fp61", "train --cfg job", "eval model_path=runs/absent"),
    "generate model_path=runs/absent prompt=x",
    *(f"{verb} model_path=runs/absent file=README.md" for verb in ("translate", "score", "predict")),
]


def test_answers_without_torch():
    script = f"""
import sys
from lmctl.cli.main import main
for line in {QUICK}:
    main(line.split())
    if "torch" in sys.modules:
        sys.exit(f"torch was loaded for {{line}}")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
