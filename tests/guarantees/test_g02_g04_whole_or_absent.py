"""G2: a checkpoint is whole or absent; G4: older ones go only after the new one is committed, and the best stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from full_disk import full_disk

from lmctl.core.errors import DiskError
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import verify

SAVES = ("torch.save", "lmctl.train.checkpoint_files.save_file")


def save(store: Checkpoints, step: int, best: int = 1) -> None:
    store.save(step, {"a": torch.full((3,), step)}, {"step": step}, {"random": step}, best)


def sound(root: Path) -> list[str]:
    """The checkpoints that a resumed run would find, all of which are sound, and none is on its way."""
    found = sorted(path.name for path in root.glob("step-*"))
    assert [verify(root / name) for name in found] == [None] * len(found)
    return found


def protocol(root: Path) -> list[str]:
    store = Checkpoints(root, keep=2)
    for step in (1, 2, 3):
        save(store, step)
    with full_disk(lambda call, path: False, *SAVES) as done:
        save(store, 4)
    return done


def test_g02_g04_whatever_fails_while_saving(tmp_path: Path):
    """Each step of the protocol in turn. The older ones are those of before until the new one is there."""
    steps = protocol(tmp_path / "whole")
    assert sound(tmp_path / "whole") == ["step-00000001", "step-00000003", "step-00000004"]
    committed = next(n for n, act in enumerate(steps) if act.startswith("os.rename") and "step-00000004" in act)
    assert 5 < committed < len(steps)
    for number in range(len(steps)):
        root, count = tmp_path / str(number), iter(range(1000))
        store = Checkpoints(root, keep=2)
        for step in (1, 2, 3):
            save(store, step)
        failed = False
        with full_disk(lambda *_, number=number, count=count: next(count) == number, *SAVES):  # type: ignore[misc]
            try:
                save(store, 4)
            except DiskError:
                failed = True
        if failed and number <= committed:
            assert sound(root) == ["step-00000001", "step-00000002", "step-00000003"], steps[number]
        else:
            assert {"step-00000001", "step-00000003", "step-00000004"} <= set(sound(root)), steps[number]
        # Failures that do no harm: to make a folder that is there, and to take its name from an old checkpoint.
        assert failed or steps[number].startswith("os.mkdir") or ".partial-old" in steps[number], steps[number]
        save(store, 5)
        assert {"step-00000001", "step-00000005"} <= set(sound(root))
        assert not list(root.glob(".*"))


def test_g04_the_best_of_a_run_that_went_back(tmp_path: Path):
    """What was saved after the checkpoint that it went back to may have been better, but is no longer of this run."""
    store = Checkpoints(tmp_path, keep=2)
    for step, best in ((1, 1), (2, 2), (3, 3)):
        save(store, step, best)
    store.rewind(2)
    for step in (3, 4, 5):
        save(store, step, best=2)
    assert sound(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    assert store.named("best") == "step-00000002"


def test_g04_killed_while_one_of_the_same_step_is_replaced(tmp_path: Path, monkeypatch):
    """A run that is stopped after skipped steps saves the step anew that its newest checkpoint is of."""
    store, rename = Checkpoints(tmp_path, keep=2), os.rename
    save(store, 1)

    def killed(here, there) -> None:
        if Path(there).name == "step-00000001":
            raise KeyboardInterrupt
        rename(here, there)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(store, 1)
    monkeypatch.undo()
    assert [path.name for path in Checkpoints(tmp_path, keep=2).sound(print)] == ["step-00000001"]
