"""A small trained teacher in a run directory, made once for a module's tests."""

from __future__ import annotations

from pathlib import Path

from command import SMALL, succeed, write_documents

STUDENT = ["model=bert_tiny", "model.hidden=16", "model.feed_forward=32", "model.layers=1", "model.heads=2"]
SHORT = ["budget.steps=6", "batch.size=8", "eval.rows=16", "log.every=2", "runner=cpu", "distill.control=false"]


def bert_teacher(folder: Path, *more: str) -> Path:
    """`folder/teacher`, trained on `folder/text.txt`, its cache in `folder/cache`."""
    write_documents(folder / "text.txt")
    succeed(
        *("train", *SMALL, "data.path=text.txt", "mix=mlm_nsp", "budget.steps=20", "name=teacher"),
        *("run_dir=teacher", "model.layers=3", *more),
        cwd=folder,
    )
    return folder / "teacher"
