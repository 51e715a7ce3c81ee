"""Running lmctl as its users do: in a process of its own, on text in a file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT, HELPERS = Path(__file__).parents[2], Path(__file__).parent
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TIMING = {"seconds", "tokens_per_s", "peak_memory_bytes"}
"""Keys of metrics.jsonl that depend on the clock or the machine."""

SMALL = [
    "data=text",
    "tokenizer.vocab_size=300",
    "model=bert_tiny",
    "model.hidden=32",
    "model.feed_forward=64",
    "batch.size=8",
    "batch.seq_len=32",
    "eval.rows=16",
    "log.every=3",
    "runner=cpu",
]
"""Overrides for a run of seconds; `data.path=` comes on top."""


KERNELS = Path(tempfile.gettempdir()) / f"lmctl-test-kernels-{os.getuid()}"
"""Machine code of the compiled kernels, shared by all tests: compiling it takes ten seconds."""


def environment(cache: Path, **changes: str) -> dict[str, str]:
    """This environment with a cache of the test's own, and one thread, so that sums are made in one order."""
    share_kernels(cache)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"LMCTL_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "200"}
    return {**os.environ, **own, **changes}


def share_kernels(cache: Path) -> None:
    """Let a cache keep its machine code where all tests find it."""
    KERNELS.mkdir(mode=0o700, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (cache / "kernels").symlink_to(KERNELS)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lmctl", *arguments]


def lmctl(*arguments: str, cwd: Path, cache: Path | None = None, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run `lmctl arguments` to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(cache or cwd / "cache"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **{"stdin": subprocess.DEVNULL} | kwargs,
    )


def succeed(*arguments: str, cwd: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`lmctl arguments`, which must end with 0."""
    done = lmctl(*arguments, cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    return done


def elsewhere(code: str, *words: str, folder: Path, cache: Path, **changes: str) -> str:
    """What Python code prints in another process, whose hashes differ; it can import what lies in `folder`."""
    env = environment(cache, **{"PYTHONHASHSEED": "7"} | changes)
    env["PYTHONPATH"] += f"{os.pathsep}{HELPERS}"
    words = (sys.executable, "-c", code, *words)
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_processes(count: int, script: str, folder: Path) -> list[dict[str, Any]]:
    """Run `script`, which lies beside this file, in `count` processes of torch; `folder` is its argument. What each
    process wrote into its `rank-<n>.pt` there, and the folder."""
    import torch

    done = subprocess.run(
        [sys.executable, *TORCHRUN[:-1], f"--nproc-per-node={count}", str(HELPERS / script), str(folder)],
        env=environment(folder / "cache", CUDA_VISIBLE_DEVICES=""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(count)]
    return [rank | {"folder": folder} for rank in found]


def write_documents(path: Path, count: int = 30, seed: int = 0) -> Path:
    """A BERT-style file: one sentence per line, a blank line between documents."""
    rng = random.Random(seed)
    subjects = ["the cat", "a dog", "my neighbour", "the old sailor", "that machine", "our teacher"]
    verbs = ["sees", "likes", "follows", "remembers", "forgets", "repairs"]
    objects = ["the river", "a red house", "some music", "the long road", "two apples", "an idea", "the winter"]
    documents = []
    for number in range(count):
        favourite = rng.sample(objects, 3)
        lines = [
            f"{rng.choice(subjects).capitalize()} {rng.choice(verbs)} {rng.choice(favourite)} {number % 10}."
            for _ in range(rng.randrange(4, 12))
        ]
        documents.append("\n".join(lines))
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())
