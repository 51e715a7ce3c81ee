"""Whether texts have room in a model, asked of all of them before it works on the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lmctl.core.errors import DataError
from lmctl.inference.input_lines import is_standard_input
from lmctl.inference.load import Loaded

SHOWN = 3
"""Lines that are named one by one."""


class Place:
    """Where a line stands, as messages begin: `prompts.txt:7: `, `line 7 of standard input: `; nothing of what was
    typed."""

    def __init__(self, file: str | None, typed: bool = False) -> None:
        self.file, self.typed = file, typed

    def of(self, number: int) -> str:
        """Of line `number`, from 1."""
        if self.typed:
            return ""
        return f"line {number} of standard input: " if is_standard_input(self.file) else f"{self.file}:{number}: "


def check_prompt(loaded: Loaded, text: str, where: str) -> None:
    """DataError if a prompt has no room in the model or, where it is to go on with it, leaves none. The message begins
    with `where`."""
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
    loaded: Loaded, lines: Iterable[str], place: Place, say: Callable[[str], None], prefix: str = ""
) -> Iterator[str]:
    """`lines` as they are; `say` is told of those that, behind `prefix`, the model cannot read to their ends."""
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
