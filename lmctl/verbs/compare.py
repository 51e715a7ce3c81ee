"""`lmctl compare`: runs and sweeps in one table, and in an HTML page with plots."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Optional

from lmctl.config.schema import one_of, positive
from lmctl.config.table import MISSING, key
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of
from lmctl.core.json_lines import emit
from lmctl.core.paths import Places, ResultFile
from lmctl.core.suggest import did_you_mean

if TYPE_CHECKING:
    from lmctl.compare.comparison import Comparison, Reader

FORMATS = ("text", "csv", "markdown", "json")


@dataclass(frozen=True)
class CompareConfig:
    """Root config of `lmctl compare`."""

    runs: Places = key(MISSING, "runs, sweeps, or folders of them; typed as plain words")
    metric: str = key("loss", "what means over seeds and effects of settings are about, on a terminal")
    format: str = key(
        "text", "text for people; csv, markdown, or json (an object per line): the whole table, on standard output"
    )
    out: Optional[ResultFile] = key(
        None, "the HTML page; null: compare.html, in the sweep or folder if it is one, or here"
    )
    page: bool = key(True, "write the page")
    watch: bool = key(False, "write it again and again until all runs have ended")
    every: float = key(15.0, "seconds between two looks, with watch=true")

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)
        positive(every=self.every)
        if not self.places:
            raise ValueError("runs is required: the directories of runs or sweeps, as in lmctl compare runs/a runs/b")
        if self.watch and not self.page:
            raise ValueError("watch=true writes the page again and again, so page=false does not go with it")

    @property
    def places(self) -> list[str]:
        """The places to look for runs in."""
        return [self.runs] if isinstance(self.runs, str) else [str(place) for place in self.runs or ()]


class Compare(Verb[CompareConfig]):
    purpose = "Compare runs and sweeps: one table, and one HTML page with plots that needs no network."
    examples = (
        "lmctl compare runs/sweep",
        "lmctl compare runs/a runs/b",
        "lmctl compare runs format=csv page=false",
    )
    often = (
        "runs", "out", "metric", "format", "watch", "page",
    )  # fmt: skip
    schema = CompareConfig
    places: ClassVar[str | None] = "runs"

    def run(self, config: CompareConfig) -> None:
        """Write the page and print the table."""
        from lmctl.compare.comparison import Reader

        reader = Reader(config.places)
        comparison = reader.read()
        if config.metric not in comparison.metrics and comparison.metrics:
            choices = did_you_mean(config.metric, comparison.metrics)
            raise ConfigError(f"metric={config.metric}: no run has such a metric{choices}")
        if config.page:
            comparison = write(comparison, reader, config)
        show(comparison, config)


def write(comparison: Comparison, reader: Reader, config: CompareConfig) -> Comparison:
    """Write the page, again and again with watch=true; returns what is on the last one."""
    from lmctl.compare.page import write_page
    from lmctl.train.display import Display

    file, title = _file(config), title_of(config.places)
    while True:
        write_page(comparison, title, file)
        Display().say(f"{comparison.counts}   page: {file}")
        if not config.watch or not comparison.is_running:
            return comparison
        time.sleep(config.every)
        comparison = reader.read()


def show(comparison: Comparison, config: CompareConfig) -> None:
    """Print the table in the chosen form."""
    from lmctl.compare import table
    from lmctl.compare.importance import importance_lines
    from lmctl.compare.pair import print_pair

    if config.format == "csv":
        print(table.csv_text(comparison), end="")
    elif config.format == "markdown":
        print(table.markdown_text(comparison), end="")
    elif config.format == "json":
        for record in table.records(comparison):
            emit(record)
    else:
        searched = [line for place in config.places for line in importance_lines(path_of(place))]
        table.print_text(comparison, config.metric, searched)
        if len(comparison.runs) == 2:
            print_pair(comparison)


def title_of(places: Sequence[str]) -> str:
    """A title for the page: the places, or how many."""
    names = [Path(os.path.abspath(path_of(place))).name for place in places]
    return f"Comparison: {', '.join(names)}" if len(names) <= 4 else f"Comparison of {len(names)} places"


def _file(config: CompareConfig) -> Path:
    from lmctl.compare.find import holds_runs
    from lmctl.compare.page import FILE

    if config.out is not None:
        return path_of(config.out)
    place = path_of(config.places[0])
    return place / FILE if len(config.places) == 1 and holds_runs(place) else Path(FILE)
