"""Text that is prepared into a cache: what comes out of it, and how its files are damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from command import write_documents

from lmctl.data.table import Table
from lmctl.data.text import TextFiles
from lmctl.mix.mix import Mix, Task
from lmctl.objective.classify import Classify
from lmctl.objective.mlm import MaskedLM
from lmctl.train.prepare import Prepared


def flip(path: Path, at: int = -1) -> None:
    """Another bit in a byte, and the time of modification as it was."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def text_mix(folder: Path) -> Mix:
    """A task with running text, and one with labels."""
    folder.mkdir(exist_ok=True)
    documents = write_documents(folder / "text.txt")
    rows = "\n".join(f"{number % 3},a row about {number}" for number in range(40))
    (folder / "rows.csv").write_text(f"label,text\n{rows}\n")
    table = Table(str(folder / "rows.csv"), label="label")
    return Mix({"text": Task(MaskedLM(), TextFiles(str(documents))), "rows": Task(Classify(), table)})


def figures(prepared: Prepared) -> Any:
    """All that a run computes with."""
    stores = [store for corpus in prepared.corpora.values() for store in (corpus.train, corpus.valid)]
    arrays = [[store.tokens, store.sentences, store.documents, store.histogram, store.labels] for store in stores]
    rest = [(store.characters, store.label_names) for store in stores]
    return [[None if a is None else a.tolist() for a in some] for some in arrays], rest, prepared.fingerprints
