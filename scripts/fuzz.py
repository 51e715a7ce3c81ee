"""Random and damaged inputs for everything lmctl reads: each is read, or refused in words with a documented exit code.

    python scripts/fuzz.py all                       # 20,000 inputs for every reader
    python scripts/fuzz.py csv jsonl --inputs 500 --seed 7
    python scripts/fuzz.py csv --only 123            # input 123 again, with its traceback
    python scripts/fuzz.py csv --atheris             # inputs guided by coverage, one reader (pip install atheris)

Everything happens in this process, and nothing is trained. A line per reader says how many inputs were read, and how
many refused by which exit code. An exception without words, an answer that is wrong in itself (a text that cannot be
written, an empty message) and an input that takes longer than --limit seconds are failures, and the script then ends
with exit code 1. Input N of a reader depends on --seed and N alone.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT), str(ROOT / "tests/helpers")]
for name, value in {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
                    "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}.items():  # fmt: skip
    os.environ.setdefault(name, value)

READERS = {
    "nbest": "lists", "pairs": "lists", "lines": "lists",
    "csv": "tables", "tsv": "tables", "jsonl": "tables", "parquet": "tables", "rows": "tables",
    "text": "texts", "parallel": "texts", "cache": "entries",
    "files": "models", "prompts": "models", "models": "models",
    "configs": "words", "help": "words", "words": "words",
}  # fmt: skip
"""Readers by name and the module of `fuzzing` that has each: a function of a generator and an empty folder. Cheap ones
first."""


class TooLong(BaseException):
    """The clock ran out. No handler of the code under test may swallow it."""


@dataclass
class Tally:
    """What became of the inputs of one reader."""

    reader: str
    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    """`read`, or the name of the exit code."""
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = "  ".join(f"{kind} {count:,}" for kind, count in sorted(self.kinds.items(), key=lambda item: -item[1]))
        return (
            f"{self.reader:<9} {self.inputs:>7,} inputs  {self.seconds:>6.0f} s (slowest {self.slowest:.1f} s)  "
            f"{len(self.failures)} failures  {kinds}"
        )


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("readers", nargs="+", choices=["all", *READERS], metavar="READER", help=" ".join(READERS))
    options.add_argument("--inputs", type=int, default=20_000, help="inputs per reader")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="number of the first input")
    options.add_argument("--only", type=int, help="try this input alone, and show the traceback")
    options.add_argument("--limit", type=float, default=60.0, help="seconds that one input may take")
    options.add_argument("--progress", type=int, default=0, help="a line on standard error after so many inputs")
    options.add_argument("--atheris", action="store_true", help="let atheris choose the inputs of the one reader")
    given = options.parse_args()
    if given.atheris:
        guided(given.readers[0], given.inputs, given.seed, given.limit)
    names = list(READERS) if "all" in given.readers else given.readers
    numbers = (
        range(given.first, given.first + given.inputs) if given.only is None else range(given.only, given.only + 1)
    )
    failed = False
    for name in names:
        tally = run(name, numbers, given.seed, given.limit, given.progress, show=given.only is not None)
        print(tally, flush=True)
        for failure in tally.failures[:20]:
            print(f"  {failure}", flush=True)
        failed = failed or bool(tally.failures)
    return int(failed)


def reader_of(name: str) -> Callable[[random.Random, Path], None]:
    """The function that tries one input on the reader `name`."""
    reader: Callable[[random.Random, Path], None] = getattr(importlib.import_module(f"fuzzing.{READERS[name]}"), name)
    return reader


class Guided(random.Random):
    """Draws what the bytes of a fuzzer say, and zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data, self.at = data, 0

    def getrandbits(self, k: int) -> int:
        size = -(-k // 8)
        taken = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(taken.ljust(size, b"\0"), "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(53) / (1 << 53)


def guided(name: str, inputs: int, seed: int, limit: float) -> None:
    """Have atheris look for inputs of the reader `name` that fail; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["lmctl"]):
        reader = reader_of(name)
    with in_empty_folder() as folder:

        def one(data: bytes) -> None:
            _, failure = tried(reader, Guided(data), folder, limit, show=False)
            empty(folder)
            if failure:
                raise RuntimeError(failure)

        atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-seed={seed}"], one)
        atheris.Fuzz()


def run(name: str, numbers: range, seed: int = 0, limit: float = 60.0, progress: int = 0, show: bool = False) -> Tally:
    """Try the inputs of these numbers on the reader `name`."""
    reader, tally = reader_of(name), Tally(name)
    began = time.monotonic()
    with in_empty_folder() as folder:
        for number in numbers:
            start = time.monotonic()
            kind, failure = tried(reader, random.Random(f"{name}/{seed}/{number}"), folder, limit, show)
            taken = time.monotonic() - start
            tally.inputs += 1
            tally.slowest = max(tally.slowest, taken)
            if failure:
                tally.failures.append(f"--seed {seed} --only {number}: {failure}")
                print(f"{name}: {tally.failures[-1]}", file=sys.stderr, flush=True)
            else:
                tally.kinds[kind] += 1
            empty(folder)
            tally.seconds = time.monotonic() - began
            if progress and tally.inputs % progress == 0:
                print(tally, file=sys.stderr, flush=True)
    return tally


def tried(
    reader: Callable[[random.Random, Path], None], draw: random.Random, folder: Path, limit: float, show: bool
) -> tuple[str, str]:
    """What became of one input: its kind, and what is wrong with that if anything is."""
    from lmctl.cli.explain import explain
    from lmctl.core.errors import Exit

    out = io.StringIO()
    faulthandler.dump_traceback_later(3 * limit, exit=True, file=sys.__stderr__)  # where no signal is heard
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(draw, folder)
        out.getvalue().encode()
        return "read", ""
    except TooLong:
        return "", f"more than {limit:g} seconds"
    except SystemExit as end:
        return "ended", "" if end.code in (None, *Exit) else f"exit code {end.code}"
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if show:
            traceback.print_exception(error)
            print(f"printed: {out.getvalue()}", file=sys.stderr)
        known = None if isinstance(error, AssertionError) else explain(error)
        if known is None:
            return "", f"{type(error).__name__}: {str(error)[:300]} ({place(error)})"
        return known.code.name, wrong_words(f"{known}", known.hint)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def wrong_words(message: str, hint: str | None) -> str:
    """What is wrong with a message; empty if nothing is."""
    try:
        f"{message}{hint}".encode()
    except UnicodeEncodeError:
        return f"a message that cannot be printed: {message[:200]!a}"
    if not message.strip():
        return "an empty message"
    return f"a message of {len(message):,} characters: {message[:200]}" if len(message) > 10_000 else ""


def place(error: BaseException) -> str:
    """The innermost line of lmctl, or of the harness, that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(ROOT / "lmctl"))] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


@contextlib.contextmanager
def in_empty_folder() -> Iterator[Path]:
    """A folder to write inputs in, which is also the current directory; the clock is wound up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before, handler = os.getcwd(), signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            signal.signal(signal.SIGALRM, handler)


def empty(folder: Path) -> None:
    """Take away what the input left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
