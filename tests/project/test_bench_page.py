"""Every table that a benchmark writes has its place in docs/performance.md, and a place is filled again and again."""

import sys

import pytest
from command import ROOT

sys.path.append(str(ROOT / "scripts" / "bench"))

from page import PAGE, filled, table


def test_a_place_is_filled_again():
    page = "before\n<!-- one -->\n<!-- end -->\nbetween\n<!-- two -->\nold\n<!-- end -->\nafter\n"
    lines = table(["side", "ratio"], [["lmctl", "2.0"]])
    once = filled(page, "two", lines)
    assert filled(once, "two", lines) == once
    assert once.startswith(
        "before\n<!-- one -->\n<!-- end -->\nbetween\n<!-- two -->\n\n| side | ratio |\n|---|---:|\n"
    )
    assert once.endswith("| lmctl | 2.0 |\n\n<!-- end -->\nafter\n")
    with pytest.raises(SystemExit, match="no place for 'three'; it has: one, two"):
        filled(page, "three", lines)


@pytest.mark.parametrize("name", ["mlm bert_base bf16", "clm gpt2_mini fp32", "precisions bert_small AVX2", "starting"])
def test_the_page_has_places(name):
    assert filled(PAGE.read_text(encoding="utf-8"), name, ["here"]) != PAGE.read_text(encoding="utf-8")
