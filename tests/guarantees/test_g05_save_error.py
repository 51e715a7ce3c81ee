"""G5: a checkpoint that cannot be written ends the run, or is one fewer, as its config says."""

from __future__ import annotations

import errno

import pytest
from sessions import Ears, session
from small import plan, prepared

from lmctl.config.schema import Budget, Checkpointing, Evaluation
from lmctl.core.errors import DiskError
from lmctl.train import checkpoint_files


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("on_error", ["stop", "warn"])
def test_g05_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch, on_error, background):
    """The second of three meets a full disk; the first one stays, and nothing else is left of the second."""
    save_file, calls = checkpoint_files.save_file, []

    def full(weights, path, metadata):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(weights, path, metadata)

    monkeypatch.setattr(checkpoint_files, "save_file", full)
    own = plan(
        budget=Budget(steps=6),
        eval=Evaluation(every=9, rows=8),
        checkpoint=Checkpointing(every=2, keep=3, on_error=on_error, background=background),
    )
    run = session(tmp_path, own, prepared())
    if on_error == "stop":
        with pytest.raises(DiskError, match="step-00000004: No space left on device"):
            run.run()
    else:
        assert run.run()["steps"] == 6
        assert isinstance(run.display, Ears)
        assert sum("the run goes on without it" in line for line in run.display.heard) == 1
    there = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(("step", "."))}
    assert there == {"step-00000002"} | ({"step-00000006"} if on_error == "warn" else set())
