"""What people look at fits into a terminal of 60, 80 and 120 columns, and stays whole in a file."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SMALL, environment, write_documents
from recorded_runs import write_grid
from rich.cells import cell_len

from lmctl.cli.main import main
from lmctl.doctor.proof import Proof
from lmctl.train.display import COMMAND, folded

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
WIDTHS = (60, 80, 120)
CELLS = [f"grid/optim.lr=0.1,precision={name},seed=1" for name in ("fp32", "bf16")]
LOOKS = {
    "--help": [["--help"]],
    "list": [["list", "precision"], ["list", "optim.lr"]],
    "compare": [["compare", "grid"], ["compare", *CELLS]],
    "doctor": [["doctor", "runner=cpu", "only=[made_up]"]],
    "plan": [["plan", *SMALL, "data.path=docs.txt", "mix=mlm"]],
    "train": [["train", "data.path=docs.txt", *SMALL, "mix=mlm", "budget.steps=2", "resume=false", "name=x"]],
}
"""Commands by their verb, to be typed in the folder of `place`."""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_grid(folder / "grid")
    write_documents(folder / "docs.txt")
    return folder


@pytest.fixture
def printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def run(words: list[str], width: int, stream: type[io.StringIO] = Terminal) -> list[str]:
        """The lines of both streams, without colours."""
        both = stream()
        for name, value in {**environment(place / "cache"), "COLUMNS": str(width), "TERM": "xterm"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(place)
        monkeypatch.setattr("lmctl.train.loss_plot.plot_losses", lambda *_: None)
        monkeypatch.setattr(sys, "stdout", both)
        monkeypatch.setattr(sys, "stderr", both)
        named = [f"name=x{width}" if word == "name=x" else word for word in words]
        assert main(named) == 0, both.getvalue()
        return ESCAPES.sub("", both.getvalue().replace("\r", "\n")).splitlines()

    return run


@pytest.mark.parametrize("verb", LOOKS)
def test_lines_are_no_wider_than_the_terminal(
    verb: str, printed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
):
    """But for commands and paths, which are copied in one piece."""
    claim = "a claim of many words, which has to be folded below itself, and not at the edge of the terminal"
    monkeypatch.setattr("lmctl.doctor.proofs.PROOFS", [Proof("made_up", claim, lambda _: "something was found")])
    for width in WIDTHS[:1] if verb == "train" else WIDTHS:  # its lines are folded as all others are
        for words in LOOKS[verb]:
            lines = printed(words, width)
            assert lines
            assert [line for line in lines if line.endswith(" ")] == []
            assert [
                line for line in lines if cell_len(line) > width and not COMMAND.search(line) and "=/" not in line
            ] == []


@pytest.mark.parametrize("words", [words for verb, looks in LOOKS.items() if verb != "train" for words in looks], ids=" ".join)  # fmt: skip # noqa: E501
def test_no_line_of_a_file_ends_in_blanks(
    words: list[str], printed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lmctl.doctor.proofs.PROOFS", [Proof("made_up", "a short claim", lambda _: "a longer find")])
    assert [line for line in printed(words, 80, io.StringIO) if line.endswith(" ")] == []


def test_figures_of_a_table_stay_whole(printed: Callable[..., list[str]]):
    """Names of runs are folded in their place."""
    for width in WIDTHS:
        text = "\n".join(printed(["compare", "grid"], width))
        assert "…" not in text
        assert re.search(r"completed +200 +3\.7500 .*20s", text)


def test_a_file_has_a_line_for_each_option(printed: Callable[..., list[str]]):
    lines = printed(["list", "precision"], 60, io.StringIO)
    assert any(line.startswith("  nf4_lora ") and line.endswith("slow on CPUs") and len(line) > 60 for line in lines)


def test_folding():
    said = "next: a line of words that is long   lmctl train name=x budget.steps=1000 optim.lr=1e-3"
    assert folded(said, 30).splitlines() == [
        "next: a line of words that is",
        "  long",
        "    lmctl train name=x budget.steps=1000 optim.lr=1e-3",
    ]
    assert folded("note    a text that is folded below itself", 24).splitlines() == [
        "note    a text that is",
        "        folded below",
        "        itself",
    ]
    assert folded("短 句子 句子 句子", 8).splitlines() == ["短 句子", "  句子", "  句子"]
