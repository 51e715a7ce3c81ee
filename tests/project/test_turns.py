"""`pytest --turn N`: of the slow tests the Nth is run with the quick ones."""

from __future__ import annotations

import shutil
import subprocess
import sys

from command import ROOT

TESTS = """
import pytest

@pytest.mark.parametrize("kind", ["quick", pytest.param("a", marks=pytest.mark.slow), "also quick"])
def test_one(kind): pass

@pytest.mark.slow
@pytest.mark.parametrize("kind", ["b", "c"])
def test_all(kind): pass
"""


def test_one_of_three_slow_tests_has_its_turn(tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--collect-only", "-q", "--turn=5"]
    said = subprocess.run([*command, tmp_path], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    chosen = [line.partition("[")[2].rstrip("]") for line in said.splitlines() if "::" in line]
    assert chosen == ["c", "quick", "also quick"]
