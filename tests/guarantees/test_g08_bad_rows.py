"""G8: malformed rows end a command with file, line and reason; `on_bad_row=skip` leaves them out, and counts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import SMALL
from in_process import lmctl

GOOD = [f"It is number {number}." for number in range(40)]
WORDS = ["train", "mix=classify", *(word for word in SMALL if not word.startswith("data=")), "budget.steps=2"]
FORMATS = {
    "jsonl": (
        [f'{{"text": "{text}", "label": "{"ab"[number % 2]}"}}' for number, text in enumerate(GOOD)],
        [
            "{broken",
            "[1, 2]",
            '{"text": "x"}',
            '{"text": null, "label": "a"}',
            '{"text": "x", "label": {}}',
            "NaN",
            '"',
        ],
    ),
    "table": (
        ["text,label", *(f"{text},{'ab'[number % 2]}" for number, text in enumerate(GOOD))],
        ["one cell", "three, whole, cells", "x,"],
    ),
}
CASES = [(kind, row) for kind, (_, rows) in FORMATS.items() for row in rows]


@pytest.mark.parametrize(("kind", "row"), CASES)
def test_g08_a_bad_row_is_named_and_can_be_left_out(tmp_path: Path, kind: str, row: str):
    file = tmp_path / ("rows.jsonl" if kind == "jsonl" else "rows.csv")
    lines = list(FORMATS[kind][0])
    lines.insert(7, row)
    file.write_text("\n".join(lines) + "\n")
    words = [*WORDS, f"data={kind}", f"data.path={file}", "data.label=label", "data.valid_share=0.25", "name=run"]
    stopped = lmctl(*words, cwd=tmp_path)
    assert stopped.returncode == 3, stopped.stderr
    assert f"{file.name}:8: " in stopped.stderr
    assert not (tmp_path / "runs").exists()
    skipped = lmctl(*words, "data.on_bad_row=skip", cwd=tmp_path)
    assert skipped.returncode == 0, skipped.stderr
    assert "1 bad row skipped" in skipped.stderr
    assert f"{file.name}:8" in skipped.stderr
