"""The record of a run has the bytes that its checkpoint says; a damaged one is set aside, and that is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from damaged import copied, make_run, own_plan
from sessions import Ears, session
from small import prepared

from lmctl.config.schema import Budget


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


def flip(data: bytes) -> bytes:
    return data.replace(b'"loss": ', b'"lass": ', 1)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes | None], int | None]] = {
    "nothing": (lambda data: data, None),
    "lines after the checkpoint": (lambda data: data + b'{"step": 5, "split": "train"}\n{"st', None),
    "deleted": (lambda data: None, 0),
    "empty": (lambda data: b"", 0),
    "another word": (flip, 3),
    "its first line is gone": (lambda data: data.split(b"\n", 1)[1], 2),
    "cut in a line": (lambda data: data[:-9], 2),
    "garbage": (lambda data: b"\xff\x00" * len(data), 0),
    "lines of no run": (lambda data: b"[3]\n" + b'{"step": -1, "split": "train"}\n{"step": "x"}\n' + data, 3),
    "nested": (lambda data: b"[" * 100_000 + b"\n" + data, 3),
}


@pytest.mark.parametrize(("damage", "kept"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_record_is_set_aside_and_the_run_goes_on(whole: Path, tmp_path: Path, damage, kept):
    copied(whole, run := tmp_path / "run")
    file = run / "metrics.jsonl"
    before = file.read_bytes()
    assert before.count(b"\n") == 3
    damaged = damage(before)
    file.unlink() if damaged is None else file.write_bytes(damaged)
    again = session(run, replace(own_plan(), budget=Budget(steps=6)), prepared(), resume=True)
    again.run()
    assert isinstance(again.display, Ears)
    said = [line for line in again.display.heard if line.startswith("record: ")]
    lines = file.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines][-1] == 6
    aside = run / "metrics.broken-0.jsonl"
    if kept is None:
        assert said == []
        assert file.read_bytes().startswith(before)
        assert not aside.exists()
    else:
        (line,) = said
        assert f"set aside as {aside.name}, and its {kept} readable lines up to this step are kept" in line
        assert aside.read_bytes() == (damaged or b"")
        assert len(lines) == kept + 2
    if kept == 2:  # what was written since has a checksum of its own
        copied(run, tmp_path / "more")
        session(tmp_path / "more", again.plan, prepared(), resume=True).run()
        assert not (tmp_path / "more" / "metrics.broken-1.jsonl").exists()
        assert (tmp_path / "more" / "metrics.jsonl").read_bytes() == file.read_bytes()
