"""The pages of docs/reference/ say what verbs, groups and options say of themselves."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
from command import ROOT

from lmctl.config.compose import Composer
from lmctl.config.verb import names

SPEC = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
assert SPEC is not None
assert SPEC.loader is not None
reference = importlib.util.module_from_spec(SPEC)
sys.modules["reference"] = reference
SPEC.loader.exec_module(reference)


def test_every_verb_and_group_has_a_page():
    pages = {file.stem for file in reference.FOLDER.glob("*.md")}
    assert {f"verb-{name}" for name in names()} <= pages
    assert {f"group-{group}" for group in Composer("train").all_groups} <= pages


@pytest.mark.parametrize("group", ["schedule", "optim", "average"])
def test_pages_of_groups_are_fresh(group: str):
    """All of them: python scripts/reference.py --check, which scripts/check.sh calls."""
    made = reference._page(reference._group(group, Composer("train")))
    assert (reference.FOLDER / f"group-{group}.md").read_text(encoding="utf-8") == made


@pytest.mark.parametrize("group", reference.METHODS)
def test_every_method_is_explained(group: str):
    """Idea, formula, source, when to use it and what it costs: under a heading that is its name."""
    page = (ROOT / "docs" / reference.METHODS[group]).read_text(encoding="utf-8")
    explained = re.findall(r"^### `(\w+)`$", page, flags=re.MULTILINE)
    assert (
        sorted(set(Composer("eval" if group == "quantize" else "train").options(group)) - {"none"} - set(explained))
        == []
    )


def test_pages_of_verbs_are_fresh():
    for name in ("plan", "list"):
        made = reference._page(reference._verb(name, Composer(name) if name == "plan" else None))
        assert (reference.FOLDER / f"verb-{name}.md").read_text(encoding="utf-8") == made
