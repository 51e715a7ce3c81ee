"""Checking the lengths of all texts against the model's maximum length before processing the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lmctl.core.errors import DataError
from lmctl.inference.input_lines import is_standard_input
from lmctl.inference.load import Loaded

SHOWN = 3
"""Maximum number of lines named in a message."""


class LinePosition:
    """The position of a line as a prefix of messages: `prompts.txt:7: `, `line 7 of standard input: `; empty for an
    argument."""

    def __init__(self, file: str | None, typed: bool = False) -> None:
        self.file, self.typed = file, typed

    def of(self, number: int) -> str:
        """The prefix for line `number`, from 1."""
        if self.typed:
            return ""
        return f"line {number} of standard input: " if is_standard_input(self.file) else f"{self.file}:{number}: "


def check_prompt(loaded: Loaded, text: str, where: str) -> None:
    """DataError if a prompt is too long for the model or leaves no room for a continuation. The message begins with
    `where`."""
    if loaded.positions is None:
        return
    count, goes_on = len(loaded.prompt(text)), loaded.family == "decoder"
    if count + goes_on > loaded.positions:
        raise DataError(
            f"{where}the prompt has {count:,} tokens, and the model takes {loaded.positions:,}"
            + (", its answer included" if goes_on else ""),
            "shorten it; its end matters most to what comes next" if goes_on else "shorten it",
        )


def cut_lines(
    loaded: Loaded, lines: Iterable[str], place: LinePosition, say: Callable[[str], None], prefix: str = ""
) -> Iterator[str]:
    """Pass `lines` on unchanged; report those that, with `prefix`, the model truncates."""
    count = 0
    for number, line in enumerate(lines, start=1):
        tokens = len(loaded.tokenizer(prefix + line)["input_ids"]) if line.strip() else 0
        if loaded.positions is not None and tokens > loaded.positions:
            count += 1
            if count <= SHOWN:
                say(
                    f"{place.of(number)}{tokens:,} tokens, and the model reads {loaded.positions:,}: "
                    "the rest of the line is left out"
                )
        yield line
    if count > SHOWN:
        say(f"so it is with {count - SHOWN:,} more lines")
