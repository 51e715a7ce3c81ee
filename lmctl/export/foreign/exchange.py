"""What a process of a foreign runtime is asked, and what it answers: numbered batches in .npz files.

A batch has its inputs, arrays by name, and how often it is run; an answer has the logits, and the seconds of each time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

Arrays: TypeAlias = Mapping[str, np.ndarray]
Run: TypeAlias = Callable[[Arrays], np.ndarray]
"""The logits of a batch, float32, of its inputs."""


def write_batches(file: Path, batches: list[Arrays], repeats: list[int]) -> None:
    """Batches, and how often each is to be run."""
    arrays = {f"{number}/{name}": value for number, batch in enumerate(batches) for name, value in batch.items()}
    np.savez(file, allow_pickle=False, repeats=np.array(repeats, dtype=np.int64), **arrays)


def read_answers(file: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The logits of each batch, and the seconds of each time that it was run."""
    with np.load(file, allow_pickle=False) as found:
        count = sum(name.endswith("/logits") for name in found.files)
        return [found[f"{n}/logits"] for n in range(count)], [found[f"{n}/seconds"] for n in range(count)]


def answer(opened: Callable[[Path, Mapping[str, str]], tuple[str, Run]]) -> None:
    """The whole of such a process: `python -m MODULE DIRECTORY BATCHES ANSWERS ARGUMENTS`. `opened` loads the directory
    and returns what the runtime calls itself, and the function that runs a batch. The name goes to standard output."""
    folder, asked, answered, arguments = sys.argv[1:]
    version, run = opened(Path(folder), json.loads(arguments))
    answers: dict[str, np.ndarray] = {}
    with np.load(asked, allow_pickle=False) as found:
        for number, times in enumerate(found["repeats"]):
            prefix = f"{number}/"
            batch = {name.removeprefix(prefix): found[name] for name in found.files if name.startswith(prefix)}
            seconds = []
            for _ in range(int(times)):
                before = time.perf_counter()
                logits = run(batch)
                seconds.append(time.perf_counter() - before)
            answers |= {f"{number}/logits": logits.astype(np.float32), f"{number}/seconds": np.array(seconds)}
    np.savez(answered, allow_pickle=False, **answers)
    print(version)
