"""Signals before there is anything to save end a command at once; long work says how far it is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command import SMALL, command, environment

from lmctl.core import progress, signals
from lmctl.train.display import Display

SECONDS = 20
"""Until a process has gone, on a machine that does much else."""


@pytest.fixture
def handlers():
    before, hook = {number: signal.getsignal(number) for number in signals.SIGNALS}, sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*words), cwd=folder, env=environment(folder / "cache"), stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that takes longer to learn pieces from than anybody waits: unigram, with hardly a word that repeats."""
    folder = tmp_path_factory.mktemp("long")
    rng = random.Random(1)
    with open(folder / "long.txt", "w") as out:
        for _ in range(30_000):
            out.write(" ".join("".join(rng.choices("etaoinshrdlu", k=7)) for _ in range(10)) + ".\n")
    return folder


@pytest.mark.parametrize(
    ("verb", "number"),
    [("train", signal.SIGTERM), pytest.param("prepare", signal.SIGINT, marks=pytest.mark.slow)],
    ids=["train", "prepare"],
)
def test_training_a_tokenizer_can_be_interrupted(long, verb, number):
    words = [word for word in SMALL if not word.startswith("tokenizer")] if verb == "train" else ["data=text"]
    process = start(long, verb, *words, "mix=mlm", "data.path=long.txt", "tokenizer=unigram")
    assert process.stderr is not None
    shown = next(line for line in process.stderr if line.startswith("tokenizer: training"))  # within native code
    assert "s" in shown
    process.send_signal(number)
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert time.monotonic() - began < SECONDS
    assert said.splitlines()[-1] == "interrupted; nothing had to be saved"
    assert "Traceback" not in said
    assert not list((long / "cache").glob("*/*.building"))
    assert not (long / "runs").exists() or not list((long / "runs").iterdir())


def test_a_signal_interrupts_unless_there_is_something_to_save(handlers):
    signals.install()
    with pytest.raises(signals.Interrupted, match="nothing") as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.name == "SIGTERM"
    with signals.saving():
        signal.raise_signal(signal.SIGUSR1)
        assert signals.requested() == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_work_apart_answers_raises_and_is_left(handlers):
    assert signals.in_thread(lambda: threading.current_thread() is not threading.main_thread())
    with pytest.raises(ZeroDivisionError):
        signals.in_thread(lambda: 1 // 0)
    signals.install()
    over = threading.Event()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(signals.Interrupted):
        signals.in_thread(lambda: over.wait(60))
    over.set()


LOST = """
import signal, sys, time
from lmctl.cli import main

class Dies:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def work(words):
    Dies()
    time.sleep(60)
    return 0

main._dispatch = work
sys.argv = ["lmctl"]
sys.exit(main.main())
"""


def test_a_signal_while_an_object_is_destroyed_is_not_lost(tmp_path):
    """Python prints what `__del__` raises, and goes on."""
    done = subprocess.run(
        [sys.executable, "-c", LOST], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (130, signals.WORDS)


def test_progress_counts_what_is_read_and_says_what_is_left(tmp_path, capsys, monkeypatch):
    from lmctl.data.reading import fingerprint, lines
    from lmctl.train import display

    file = tmp_path / "text.txt"
    file.write_text("some line\n" * 300_000)
    with progress.stage("reading") as hashed:
        fingerprint([file])
    assert hashed.done == hashed.total == file.stat().st_size
    with progress.stage("reading", hashed.total) as stage:
        read = list(progress.counted(lines(file)))
        assert (stage.done, stage.items) == (file.stat().st_size, len(read))
        assert str(stage).startswith("reading: 100% of 3.0 MB, 300,000 documents")
    stage = progress.Stage("tokenising", 1_000, done=250, began=time.monotonic() - 10)
    assert str(stage) == "tokenising: 25% of 1.0 kB, 30s left"
    monkeypatch.setattr(display, "PATIENCE_SECONDS", 0.1)
    with Display().watching(), progress.stage("short work"):
        pass
    assert capsys.readouterr().err == ""
    with Display().watching(), progress.stage("long work", 10, "rows"):
        progress.advance(5, "rows")
        time.sleep(0.4)
    assert capsys.readouterr().err.startswith("long work: 50% of 10 rows")
