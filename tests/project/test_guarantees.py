"""docs/runs.md lists fourteen guarantees, each with files whose tests bear its number."""

from __future__ import annotations

import ast
import re

import pytest
from command import ROOT

FOLDER = ROOT / "tests" / "guarantees"
TEXT = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
LINES = re.findall(r"^- \*\*G(\d+)\*\* (.*?)(?=^- |^$)", TEXT, re.MULTILINE | re.DOTALL)


def test_there_are_fourteen():
    assert [int(number) for number, _ in LINES] == list(range(1, 15))


@pytest.mark.parametrize(("number", "line"), LINES, ids=[f"G{number}" for number, _ in LINES])
def test_a_guarantee_has_tests_that_bear_its_number(number: str, line: str):
    files = re.findall(r"`(test_\w+\.py)`", line)
    assert files
    for file in files:
        functions = [node.name for node in ast.walk(ast.parse((FOLDER / file).read_text()))
                     if isinstance(node, ast.FunctionDef)]  # fmt: skip
        assert any(re.match(rf"test_(g\d\d_)*g{int(number):02}_", name) for name in functions), file


def test_every_test_of_a_guarantee_is_told_of():
    named = set(re.findall(r"`(test_\w+\.py)`", " ".join(line for _, line in LINES)))
    assert {file.name for file in FOLDER.glob("test_*.py")} == named
