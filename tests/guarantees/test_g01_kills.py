"""G1: a run that is killed at any moment ends with the bits of one that was not. A few kills and faults of
`scripts/reliability.py`, whose table in docs/reliability.md is of many more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from command import ROOT, environment


def test_g01_a_few_kills_and_faults(tmp_path: Path):
    """The moments are those of a fixed seed; every kind of fault in one process is there once at least."""
    record = tmp_path / "record.jsonl"
    command = [sys.executable, "scripts/reliability.py", "--kills=6", "--every=900", "--only=mlm_fp16", "--jobs=1"]
    done = subprocess.run(
        [*command, f"--record={record}"],
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
    assert sum(len(line["kills"]) for line in lines if line["kind"] == "kills") >= 6
    assert len([line for line in lines if line["kind"] == "fault"]) >= 8
