"""The record as a table: how many kills and faults of every kind, and how many ended otherwise than they must."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fault_injection.workers import Line

BEGIN, END = "<!-- figures: python scripts/reliability.py --write -->", "<!-- end of figures -->"
HOW = {
    "clock": "by the clock",
    "event": "just before an event",
    "command": "commands, not forked, in their first seconds",
}


def kills_in(lines: Iterable[Line]) -> int:
    """Commands that were really ended by a signal, or stopped by one."""
    return sum(len(line["kills"]) for line in lines if line["kind"] == "kills")


def table(lines: list[Line]) -> str:
    """Markdown: kills by moment, by signal and by exit code, faults by family, inputs by reader."""
    parts = [_kills(lines), _faults(lines), _inputs(lines)]
    return "\n\n".join(part for part in parts if part)


def write_table(file: Path, lines: list[Line], commit: str) -> None:
    """Replace what stands between the markers."""
    import torch

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    day = datetime.datetime.now(tz=datetime.UTC).date()
    hours = sum(line["seconds"] for line in lines) / 3600
    head = f"Commit {commit}, {day}; {machine}; {versions}; {hours:.1f} hours of runs."
    text = file.read_text(encoding="utf-8")
    inside = f"{BEGIN}\n{head}\n\n{table(lines)}\n{END}"
    new, count = re.subn(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: inside, text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{file} has no place for the table")
    file.write_text(new, encoding="utf-8")


def _kills(lines: list[Line]) -> str:
    rounds = [line for line in lines if line["kind"] == "kills"]
    kills = [kill for line in rounds for kill in line["kills"]]
    if not rounds:
        return ""
    cells = len({line["cell"] for line in rounds})
    bad = sum(bool(line["problems"]) for line in rounds)
    how = Counter(kill["how"] for kill in kills)
    codes = Counter("signal" if kill["code"] < 0 else str(kill["code"]) for kill in kills)
    phases = Counter(kill["phase"] for kill in kills)
    signals = Counter(kill["signals"].replace(" ", ", then ") for kill in kills)
    moments = {name: how[key] for key, name in HOW.items()}
    said = [
        f"**{len(kills):,} kills in {len(rounds):,} runs over {cells} cells; {bad} runs did not end as they must.**",
        f"Moments: {_listed(moments)}.",
        f"Exit codes of what was ended: {_listed(codes)}.",
    ]
    rows = _rows("phase", "kills", phases), _rows("signal", "kills", signals)
    return "\n".join(said) + "\n\n" + "\n\n".join(rows)


def _faults(lines: list[Line]) -> str:
    tried = [line for line in lines if line["kind"] in ("fault", "failed")]
    counts = Counter(line.get("family", "ended by the harness") for line in tried)
    bad = Counter(line.get("family", "ended by the harness") for line in tried if line["problems"])
    if not tried:
        return ""
    rows = [f"| {family} | {count:,} | {bad[family]} |" for family, count in sorted(counts.items())]
    head = f"**{len(tried):,} faults; {sum(bad.values())} of them did not end as they must.**"
    return "\n".join([head, "", "| fault | tried | not held |", "|---|---|---|", *rows])


def _inputs(lines: list[Line]) -> str:
    tried = [line for line in lines if line["kind"] == "inputs"]
    if not tried:
        return ""
    counts: Counter[str] = Counter()
    for line in tried:
        counts[line["family"]] += line["count"]
    bad = sum(bool(line["problems"]) for line in tried)
    head = f"**{sum(counts.values()):,} random inputs for {len(counts)} readers; {bad} readers failed.**"
    return f"{head} {_listed(counts)}."


def _rows(what: str, of: str, counts: Counter[str]) -> str:
    rows = [f"| {name} | {count:,} |" for name, count in counts.most_common()]
    return "\n".join([f"| {what} | {of} |", "|---|---|", *rows])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
