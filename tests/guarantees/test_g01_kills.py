"""G1: a run that is killed at any moment ends with the bits of one that was not. A few kills and faults of
`scripts/reliability.py`, whose table in docs/reliability.md is of many more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, environment


@pytest.mark.parametrize(
    ("kills", "every", "faults"), [(3, 0, 0), pytest.param(6, 900, 8, marks=pytest.mark.slow)], ids=["kills", "faults"]
)
def test_g01_a_few_kills_and_faults(tmp_path: Path, kills: int, every: int, faults: int):
    """The moments are those of a fixed seed; with faults, every kind of them in one process is there once at least."""
    record = tmp_path / "record.jsonl"
    words = [f"--kills={kills}", f"--every={every}", "--only=mlm_fp16", "--jobs=1", f"--record={record}"]
    done = subprocess.run(
        [sys.executable, "scripts/reliability.py", *words],
        cwd=ROOT,
        env=environment(tmp_path / "cache", TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert sum(len(line["kills"]) for line in lines if line["kind"] == "kills") >= kills
    assert len([line for line in lines if line["kind"] == "fault"]) >= faults
