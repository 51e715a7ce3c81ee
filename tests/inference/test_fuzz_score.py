"""Whatever stands in a file of pairs or n-best lists: `lmctl score` reads it so, or says which line is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import use_models
from hypothesis import given, settings
from hypothesis import strategies as st

from lmctl.core.errors import DataError, LmctlError
from lmctl.inference.nbest import Lists, read_lists
from lmctl.inference.pairs import read_pairs

GOOD = {"id": "u1", "ref": "a b", "hyps": [{"text": "a b", "score": -1.0}, {"text": "a c", "score": -2}]}
STRANGE = st.sampled_from(
    [None, True, False, 0, -1, 10**400, 1e308, math.nan, math.inf, -math.inf, "", "nan", "1", "x\ty", "\ud83d", [], {}]
)
ANY = st.recursive(
    STRANGE | st.text(max_size=4) | st.floats(),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "score", "id", "ref", "hyps", "good", "bad", "x"]), inside, max_size=4
        )
    ),
    max_leaves=6,
)
KEYS = ["id", "ref", "hyps", "good", "bad", "sentence_good", "sentence_bad", "x"]


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line that is nearly right, or anything at all."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.text(st.characters(exclude_characters="\n\r", exclude_categories=("Cs",)), max_size=20))
    if kind == 1:
        return draw(st.sampled_from(["", "  ", "\t", "a\tb", "{", "{}", "[]", '{"a": 1, "a": 1}', "[" * 9000]))
    row = {**GOOD, **{key: draw(ANY) for key in draw(st.lists(st.sampled_from(KEYS), max_size=2))}}
    if kind == 2:
        row = draw(st.dictionaries(st.sampled_from(KEYS), ANY, max_size=5))
    if kind == 3 and isinstance(row["hyps"], list) and row["hyps"]:
        row["hyps"] = [*row["hyps"], {"text": draw(ANY), "score": draw(ANY)}]
    if kind == 4:
        row.pop(draw(st.sampled_from(sorted(row))))
    return json.dumps(row, ensure_ascii=draw(st.booleans()))


def names_a_line(error: DataError, *others: str) -> None:
    assert str(error).startswith("file:") or any(other in str(error) for other in others), error


def only_lists_or_a_place(found: list[str]) -> None:
    """Lists that can be compared and counted, or a DataError that names a line."""
    try:
        lists = read_lists(found, "file")
    except DataError as error:
        names_a_line(error, "has no n-best lists")
        return
    table = Lists(lists, np.zeros((len(lists), max(len(u.texts) for u in lists))))
    first = table.first
    for utterance, place in zip(lists, first.tolist(), strict=True):
        assert all(isinstance(text, str) and text.encode() is not None for text in utterance.texts)
        assert utterance.scores[place] == max(utterance.scores)
    assert 0 <= table.wer(table.oracle) <= table.wer(first)


def only_pairs_or_a_place(found: list[str]) -> None:
    try:
        for good, bad in read_pairs(iter(found), "file"):
            assert (good + bad).encode() is not None
    except DataError as error:
        names_a_line(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(lines(), max_size=4))
def test_any_lines_are_lists_pairs_or_refused(found):
    only_lists_or_a_place(found)
    only_pairs_or_a_place(found)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return use_models.gpt2(tmp_path_factory.mktemp("gpt2"))


def scored(model: Path, text: str, **settings_: object) -> list[dict[str, object]]:
    """The records that `lmctl score format=json` prints for `text` on standard input."""
    return use_models.records(use_models.said("score", model, text, format="json", **settings_))


@settings(max_examples=25, deadline=None)
@given(found=st.lists(lines(), max_size=3))
def test_the_verb_scores_any_lines_or_says_what_is_wrong(gpt2, found):
    try:
        rows = scored(gpt2, "".join(f"{line}\n" for line in found if line.isprintable()))
    except LmctlError:
        return
    assert [row["row"] for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"hyps": [{"text": "a", "score": math.nan}]}, "hypothesis 1: 'score' is nan"),
        ({"hyps": [{"text": "a", "score": -1}, {"text": "a", "score": -math.inf}]}, "hypothesis 2: 'score' is -inf"),
        ({"hyps": [{"text": "a", "score": 10**400}]}, "hypothesis 1: 'score' is too large"),
        ({"hyps": [{"text": "a", "score": "-1.5"}]}, "hypothesis 1: 'score' is str, not a number"),
        ({"hyps": [{"text": "a", "score": True}]}, "hypothesis 1: 'score' is bool, not a number"),
        ({"hyps": [{"text": None, "score": 1}]}, "hypothesis 1: 'text' is null, not text"),
        ({"hyps": [{"score": 1}]}, "hypothesis 1: no 'text'"),
        ({"hyps": ["a"]}, "hypothesis 1: not a JSON object"),
        ({"hyps": {"text": "a", "score": 1}}, "'hyps' is dict, not a list"),
        ({"hyps": None}, "'hyps' is null, not a list"),
        ({"ref": None}, "'ref' is null, not text"),
        ({"ref": 5}, "'ref' is int, not text"),
        ({"id": None}, "'id' is null, not text or a whole number"),
        ({"ref": "\ud83d"}, "half a surrogate pair"),
    ],
)
def test_a_list_that_cannot_be_compared_is_refused_by_its_line(row, message):
    """A NaN would win every comparison and null would count as the word None: errors of nobody."""
    with pytest.raises(DataError) as caught:
        read_lists([json.dumps(GOOD), "", json.dumps(GOOD | row)], "lists")
    assert str(caught.value).startswith("lists:3: ")
    assert message in str(caught.value)


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
