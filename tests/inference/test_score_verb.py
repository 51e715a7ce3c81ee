"""`lmctl score`: lines, pairs and n-best lists, what it takes its input for, and what it refuses by its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import use_models
from use_models import score

from lmctl.core.errors import ConfigError, DataError
from lmctl.inference.likelihood import texts


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_lines_are_scored_as_a_table(request, typed, capsys, model):
    path = request.getfixturevalue(model)
    typed("THE CAT\n\na b c\n")
    score(path, case="lower")
    head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["logprob", "tokens", "per_token", "text"]
    expected = list(texts(use_models.opened(path), ["the cat", "", "a b c"], 2, 64))
    assert [float(row[0]) for row in rows] == pytest.approx([float(line.sum()) for line in expected], abs=1e-3)
    assert [row[3] for row in rows] == ["THE CAT", "", "a b c"]


def test_pairs_are_recognised(gpt2, typed, capsys):
    typed("the cat\tthe cat sits on the mat .\nthe dog runs on the red mat\tthe\n")
    score(gpt2)
    printed = capsys.readouterr()
    assert [line.split("\t")[2] for line in printed.out.splitlines()] == ["right", "1", "0"]
    assert "accuracy 0.5000 of 2 pairs" in printed.err


def nbest(count: int) -> str:
    hyps = [{"text": "B C D", "score": -1.0}, {"text": "THE CAT", "score": -1.1}]
    return "".join(json.dumps({"id": n, "ref": "THE CAT", "hyps": hyps}) + "\n" for n in range(count))


def test_nbest_lists_are_rescored(gpt2, tmp_path, typed, capsys):
    dev, out = tmp_path / "dev.jsonl", tmp_path / "best.txt"
    dev.write_text(nbest(4))
    typed(nbest(2))
    score(gpt2, dev=str(dev), case="lower", out=str(out))
    head, on_dev, on_file, tuned = capsys.readouterr().out.splitlines()
    assert head.split("\t") == ["set", "utterances", "words", "wer_before", "wer_after", "wer_oracle"]
    assert on_dev.split("\t") == ["dev", "4", "8", "150.00", "0.00", "0.00"]
    assert on_file.split("\t") == ["file", "2", "4", "150.00", "0.00", "0.00"]
    assert tuned.startswith("weight ")
    assert out.read_text() == "THE CAT\n" * 2


def test_score_says_what_is_missing(gpt2, marian, typed):
    typed(nbest(1))
    with pytest.raises(ConfigError, match="others to tune the weight"):
        score(gpt2)
    typed("a\n")
    with pytest.raises(ConfigError, match="dev and out are for n-best lists, and this is mode=lines"):
        score(gpt2, dev="dev.jsonl")
    typed("a\n")
    with pytest.raises(ConfigError, match="is a seq2seq, and score needs"):
        score(marian)
    with pytest.raises(ConfigError, match="mode must be one of auto, lines, pairs, nbest"):
        score(gpt2, mode="list")


def scored(model: Path, text: str, **settings_: object) -> list[dict[str, object]]:
    """The records that `lmctl score format=json` prints for `text` on standard input."""
    return use_models.records(use_models.said("score", model, text, format="json", **settings_))


@pytest.mark.parametrize("blank", ["\n", " \n\t\n\n"])
@pytest.mark.parametrize("pair", ['{"good": "the cat", "bad": "cat the"}', "the cat\tcat the"])
def test_blank_lines_at_the_start_do_not_hide_what_follows(gpt2, blank, pair):
    rows = scored(gpt2, f"{blank}{pair}\n")
    [plain] = scored(gpt2, f"{pair}\n")
    assert rows == [plain]
    assert plain["good"] == "the cat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('the cat\na dog\n{"good": "a", "bad": "b"}\n', "standard input:3: JSON among lines of text"),
        ("\na\tb\n\nno pair\n", "standard input:4: not a pair of sentences: no tab"),
        ('\n{"good": "a", "bad": "b"}\n{"good": "a"}\n', "standard input:3: not a pair of sentences: no 'bad'"),
        ('{"good": "a", "bad": "b"}\n{"good": "a", "bad": null}\n', "standard input:2: .*'bad' is null, not text"),
        ('{"text": "a"}\n', "standard input:1: neither a pair nor an n-best list: its keys are text"),
        ("{not json}\n", "standard input:1: not JSON"),
        ('{"good":' * 50_000 + "\n", "standard input:1: nested too deeply"),
        ('{"good": "a", "good": "b", "bad": "c"}\n', "standard input:1: the key 'good' stands there twice"),
    ],
)
def test_what_the_guess_cannot_take_is_refused_by_its_line(gpt2, text, message):
    with pytest.raises(DataError, match=message):
        scored(gpt2, text)


def test_text_that_only_looks_like_a_pair_or_like_json_is_text(gpt2):
    """An indented line has a tab, a line of code a brace, and `"hyps"` may be said in a sentence."""
    rows = scored(gpt2, "\tthe cat\n{ a ; }\n")
    assert [row["text"] for row in rows] == ["\tthe cat", "{ a ; }"]
    [pair] = scored(gpt2, json.dumps({"good": 'a "hyps"', "bad": "b"}) + "\n")
    assert pair["good"] == 'a "hyps"'
    [line] = scored(gpt2, '{"good": "a", "bad": "b"}\n', mode="lines")
    assert line["text"] == '{"good": "a", "bad": "b"}'


def test_several_files_are_named_each_by_itself(gpt2, tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\nc\td\n", encoding="utf-8")
    (tmp_path / "b.tsv").write_text("a\tb\nno pair\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.tsv:2: not a pair"):
        scored(gpt2, "", file=str(tmp_path / "*.tsv"))


def test_a_line_of_the_table_is_a_line(gpt2):
    printed = use_models.said("score", gpt2, "a\rb\tc\nd\n", mode="lines")
    assert [line.split("\t")[3] for line in printed.split("\n")[1:-1]] == ["a b c", "d"]
    assert "\r" not in printed
