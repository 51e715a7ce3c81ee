"""A file is all that a new verb needs: it is listed, explained, completed, composed, checked, swept and run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from command import environment
from in_process import lmctl

from lmctl import verbs
from lmctl.cli.main import main

GREET = '''"""`lmctl greet`: say hello."""

from dataclasses import dataclass

from lmctl.config.schema import positive
from lmctl.config.table import group, key
from lmctl.config.verb import Verb
from lmctl.core.errors import DataError
from lmctl.runner.base import Runner


@dataclass(frozen=True)
class GreetConfig:
    who: str = key("world", "who is greeted")
    times: int = key(1, "how often", ("count",))
    runner: Runner = group("cpu", "where it is said")

    def __post_init__(self) -> None:
        positive(times=self.times)


class Greet(Verb[GreetConfig]):
    schema = GreetConfig
    examples = ("lmctl greet who=you",)
    often = ("who", "runner")

    def run(self, config: GreetConfig) -> None:
        if config.who == "nobody":
            raise DataError("nobody is there")
        print(f"hello {config.who}, " * config.times + type(config.runner).__name__)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the file of one more verb, among those where verbs are looked for."""
    (tmp_path / "verbs").mkdir()
    (tmp_path / "verbs" / "greet.py").write_text(GREET)
    monkeypatch.setattr(verbs, "__path__", [*verbs.__path__, str(tmp_path / "verbs")])
    monkeypatch.delitem(sys.modules, "lmctl.verbs.greet", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--help", 0, "\n  greet +say hello\n"),
        ("greet --help", 0, "lmctl greet .*\nsay hello\n.*runner=   default cpu\n.*who +text +world +who is greeted"),
        ("greet --help who", 0, "who is greeted"),
        ("greet", 0, "^hello world, Cpu\n$"),
        ("greet who=2024_01 times=2 runner=gpu", 0, "^hello 2024_01, hello 2024_01, Gpu\n$"),
        ("greet --cfg job", 0, "who: world\ntimes: 1\nrunner:\n  _target_: lmctl.runner.places.Cpu\n"),
        ("greet tims=2", 2, "error: unknown key 'tims'; did you mean times?"),
        ("greet count=2", 2, "did you mean times?"),
        ("greet runner=tpu", 2, "no option 'tpu' in group 'runner'"),
        ("greet optim=sgd", 2, "lmctl greet takes no 'optim'"),
        ("greet times=0", 2, "error: times must be above 0, got 0"),
        ("greet tims=2 runer=cpu times=0", 2, "unknown key 'tims'.*\nerror: unknown key 'runer'"),
        ("greet --help runner", 0, "default cpu   on which devices"),
        ("greet times=often", 2, "times must be a whole number, got often"),
        ("greet who=nobody", 3, "error: nobody is there"),
        ("gret", 2, "did you mean greet?"),
    ],
)  # fmt: skip
def test_a_file_is_a_verb(
    line: str, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(line.split()) == code
    printed = capsys.readouterr()
    assert re.search(said, printed.out if code == 0 else printed.err, re.DOTALL)


def test_it_is_swept_as_others_are(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Every job in a process of its own, which has to find the file as well."""
    (folder / "sitecustomize.py").write_text(
        f"import lmctl.verbs\nlmctl.verbs.__path__.append({str(folder / 'verbs')!r})\n"
    )
    path = os.pathsep.join([str(folder), environment(folder)["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    done = lmctl("greet", "-m", "who=you,nobody", "name=s", cwd=folder)
    assert done.returncode == 2, done.stderr  # it has no key `name`
    done = lmctl("greet", "-m", "who=you,nobody", cwd=folder)
    assert done.returncode == 3, done.stderr
    (log,) = folder.glob("runs/*/who=you/log.txt")
    assert log.read_text() == "hello you, Cpu\n"
    assert "who=nobody: nobody is there" in done.stdout


def test_it_is_completed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for line, completions in (("lmctl gr", "greet"), ("lmctl greet runner=c", "runner=cpu")):
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0
        assert capsys.readouterr().out.strip() == completions
