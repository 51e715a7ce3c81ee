"""A run goes on with another number of nodes and processes: the same rows in the same order, each once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import metrics
from nodes import Nodes, kill, one_node, two_folders, wait_for_step

STEPS = ["budget.steps=60", "checkpoint.every=5", "data.path=docs.txt"]
STEADY = ["model.dropout=0", "model.attention_dropout=0"]
"""Dropout is another one in every process."""
APART = ["runner.shared_run_dir=false"]
FSDP = ["runner=fsdp", "runner.device=cpu"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("words", "processes", "nodes", "left"),
    [([], 1, 1, 1), ([], 2, 1, 2), (FSDP, 2, 1, 2), (APART, 1, 1, 1), ([*APART, *FSDP], 2, 1, 2), ([], 1, 2, 2)],
    ids=["2x1-1x1", "2x2-1x2", "fsdp-2x2-1x2", "disks-2x1-1x1", "fsdp-disks-2x2-1x2", "2x1-2x2"],
)
def test_a_run_goes_on_with_what_is_left(tmp_path: Path, words: list[str], processes: int, nodes: int, left: int):
    """Two nodes with `processes` each, of which one is lost; then `nodes` with `left` processes each."""
    folders = two_folders(tmp_path)
    run = folders[0] / "r" if APART[0] in words else tmp_path / "r"
    place = "run_dir=r" if APART[0] in words else f"run_dir={run}"
    before = Nodes(folders, *STEPS, *STEADY, *words, place, processes=processes).start()
    wait_for_step(before, run, 12)
    kill(before.launchers[1].pid)
    before.ended(limit=120)
    if APART[0] in words:  # what the first disk has is enough, wherever it is taken
        run = Path(shutil.move(run, tmp_path / "elsewhere"))
    after = Nodes(folders[:nodes], "resume=auto", f"run_dir={run}", f"runner.processes={left}", bare=True)
    ends = after.start().ended()
    assert [code for code, _ in ends] == [0] * nodes, ends
    assert f"resume: {nodes * left} processes now, {2 * processes} before: same rows" in ends[0][1]
    undisturbed = metrics(one_node(folders[0], *STEPS, *STEADY, "runner.processes=1"))
    assert len(metrics(run)) == len(undisturbed)
    for ours, theirs in zip(metrics(run), undisturbed, strict=True):
        assert ours["tokens"] == theirs["tokens"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
