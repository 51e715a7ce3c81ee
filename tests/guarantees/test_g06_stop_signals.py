"""G6: SIGTERM, SIGINT, SIGUSR1 and a hang-up finish the step, save and end with 75; output that fails ends nothing."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import SMALL, command, environment, summary, write_documents
from rich.table import Table

from lmctl.core import signals
from lmctl.core.errors import DiskError
from lmctl.core.terminal import Messages, ReaderLeft, Results, printable, tell
from lmctl.train.display import Display, print_whole

ENDLESS = ["train", *SMALL, "mix=mlm", "data.path=docs.txt", "budget.steps=1000000", "eval.every=1000000", "name=run"]


def saved(run: Path) -> bool:
    return (run / "checkpoints" / "latest").is_file() and summary(run)["status"] == "stopped"


def until_it_trains(output: int) -> None:
    """Read what a run says until it trains, and leave."""
    with open(output, encoding="utf-8", closefd=True) as said:
        for line in said:
            if line.startswith("precision: proof"):
                return
    raise AssertionError("it ended before it trained")


def test_g06_a_run_whose_reader_has_left_saves_when_it_is_told_to_stop(tmp_path):
    """As with Ctrl-C under `lmctl train 2>&1 | tee log`, which reaches tee as well."""
    write_documents(tmp_path / "docs.txt")
    reads, writes = os.pipe()
    process = subprocess.Popen(
        command(*ENDLESS), cwd=tmp_path, env=environment(tmp_path / "cache"), stdout=writes, stderr=writes
    )
    os.close(writes)
    until_it_trains(reads)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 75
    assert saved(tmp_path / "runs" / "run")


def test_g06_a_run_whose_terminal_hangs_up_saves(tmp_path):
    write_documents(tmp_path / "docs.txt")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
        words = command(*ENDLESS)
        os.execve(words[0], words, environment(tmp_path / "cache", TERM="dumb"))
    until_it_trains(terminal)  # and close it: its session is sent SIGHUP, and writing fails with EIO
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert saved(tmp_path / "runs" / "run")


def test_g06_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    """Else messages that native code or a signal handler writes to 2 would land in it."""
    code = """from lmctl.core.terminal import standard_streams
with standard_streams(), open("out", "w") as out:
    out.write(str(out.fileno()))
"""
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(closed, cwd=tmp_path, env=environment(tmp_path), check=False).returncode == 0
    assert int((tmp_path / "out").read_text()) > 2


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("> /dev/full", 6, "error: cannot write to standard output: No space left on device\n"),
        (">&-", 6, "error: cannot write to standard output: Bad file descriptor\n"),
        ("| true", 1, ""),
    ],
    ids=["full disk", "closed", "reader left"],
)
def test_g06_a_result_that_cannot_be_written_is_an_error_in_one_line(tmp_path, output, code, said):
    line = f'{{ "$@"; echo $? > code; }} {output}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *command("list")],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "code").read_text() == f"{code}\n"
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == (2 if said else 0)


class Broken:
    """A stream that cannot be written."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, text: str = "") -> int:
        raise self.error

    flush = write


@pytest.mark.parametrize(("error", "raised"), [(BrokenPipeError(), ReaderLeft), (OSError(28, "No space"), DiskError)])
def test_g06_messages_are_lost_and_results_are_not(error, raised):
    for stream in (Messages(Broken(error), escapes=True), Messages(Broken(error), escapes=False).rich_proxied_file):
        assert stream.write("four") == 4
        stream.flush()
    with pytest.raises(raised):
        Results(Broken(error), escapes=False).flush()


def test_g06_who_wants_to_stop_is_heard_once(monkeypatch):
    """A scheduler signals a launcher and its workers, and the launcher signals the workers; a hang-up is no hurry."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.install()
    try:
        with signals.saving():
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
                signal.raise_signal(number)
            assert signals.requested() == "SIGTERM"
            monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        signals.install()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


HOSTILE = "a\x1b]0;title\x07b\x9b2Jc\u202ed\udc80"


def test_g06_text_of_strangers_does_not_steer_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal, where rich sends sequences of its own
    shown = r"a\x1b]0;title\x07b\u009b2Jc\u202ed\udc80"
    by_rich = shown.replace(r"\x07", "")  # rich itself drops BEL
    assert printable(f"{HOSTILE}\t\n") == f"{shown}\t\n"
    tell(HOSTILE)
    Display().say(HOSTILE)
    assert [line.strip() for line in capsys.readouterr().err.splitlines()] == [shown, by_rich]
    table = Table("name", header_style="bold")
    table.add_row(HOSTILE)
    print_whole(table, table)
    out = capsys.readouterr().out
    assert r"a\x1b]0;title" in out
    assert "\x1b]" not in out
    assert "\x1b[1m" in out
