"""JSON as other programs read and write it: every value becomes valid JSON, and nothing else is taken for JSON."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmctl.core.json_lines import line_of, parsed

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates included
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=8,
)


def strict(text: str) -> object:
    """As a reader that is not Python's would have it: no NaN, and bytes that are UTF-8."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text.encode("utf-8"), parse_constant=refuse)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_any_record_is_one_line_of_valid_json(record):
    line = line_of(record)
    assert "\n" not in line
    strict(line)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.int64(2**40), 2**40),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]], dtype=np.int8), [[1, 2], [3, 4]]),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor([1.0, math.nan, -math.inf]), [1.0, None, None]),
        (float("nan"), None),
        (np.float64("inf"), None),
    ],
    ids=repr,
)
def test_a_number_keeps_its_value_whoever_made_it(value, expected):
    assert strict(line_of({"a": value})) == {"a": expected}


def test_what_json_does_not_know_is_its_text():
    found = strict(line_of({"path": Path("a/b"), "day": date(2020, 2, 3), "bytes": b"a\xff", 5: ("x", {"y"})}))
    assert found == {"path": "a/b", "day": "2020-02-03", "bytes": "a\ufffd", "5": ["x", ["y"]]}


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_its_character():
    assert strict(line_of({"a": "x\ud83dy", "b": "\ud83d\ude00", "c": "😀"})) == {"a": "x\ufffdy", "b": "😀", "c": "😀"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1', "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        (r'{"a": "\ud83d"}', "half a surrogate pair"),
        (r'{"\ude00": 1}', "half a surrogate pair"),
        ('{"a": {"b": 1, "b": 1}}', "'b' stands there twice"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_what_is_not_json_is_refused_in_words(text, message):
    with pytest.raises(ValueError, match=message):
        parsed(text)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_what_was_written_is_read_back(value):
    record = json.loads(line_of({"value": value}))
    assert parsed(json.dumps(record)) == record
