"""A config group more is one row, a base class and its options: nothing else has to know of it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from command import ROOT

FILES = {
    "lmctl/listener/__init__.py": "",
    "lmctl/listener/base.py": """
from abc import abstractmethod
from lmctl.core.component import Component

class Listener(Component):
    @abstractmethod
    def hear(self, name: str) -> None: ...
""",
    "lmctl/listener/lines.py": """
from dataclasses import dataclass
from lmctl.core.errors import ConfigError
from lmctl.listener.base import Listener

@dataclass(frozen=True)
class Lines(Listener):
    every: int = 1

    def hear(self, name): ...

    def check(self, plan):
        if plan.compile:
            yield ConfigError("listener: lines and compile", "compile=false")
""",
    "conf/listener/lines.yaml": (
        "# A line for each metric\n_target_: lmctl.listener.lines.Lines\nevery: 2   # steps between lines\n"
    ),
    "conf/listener/wrong.yaml": "# Of another group\n_target_: lmctl.precision.fp32.Fp32\n",
}
ROW = '    listener: Listener = group("lines", "where metrics go besides the record", identity=False)\n'
SCRIPT = """
import sys
from lmctl.cli.main import main
from lmctl.config.compose import Composer
from lmctl.core.errors import ConfigError
from lmctl.plan import Plan
from lmctl.train.run_identity import changed_keys
from omegaconf import OmegaConf

def composed(verb, *words):
    return Composer(verb).task([*words, "name=x", "run_dir=runs/x"])

print(Plan.from_config(composed("train", "listener.every=3")).listener)
assert composed("plan").listener.every == 2 and composed("distill", "teacher=x").listener.every == 2
one, other = (OmegaConf.to_container(composed("train", f"listener.every={n}"), resolve=True) for n in (1, 2))
assert changed_keys(one, other) == []
for words in (["list", "listener"], ["train", "--help", "listener"], ["train", "--help"]):
    assert main(words) == 0
for words in (["compile=true"], ["listener=wrong"], ["listener.evry=1"], ["listener=line"]):
    assert main(["train", *words]) == 2
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said by a copy of lmctl that has one group more."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("lmctl", "conf", "hydra_plugins"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    table = folder / "lmctl/config/groups.py"
    text = table.read_text().replace("    runner: Runner =", f"{ROW}    runner: Runner =", 1)
    table.write_text(text.replace("\n\n\n", "\nfrom lmctl.listener.base import Listener\n\n\n", 1))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "Lines(every=3)",
        "listener (default lines)\n  lines  A line for each metric",
        "listener=   default lines   where metrics go besides the record",
        "listener.every",
        "error: listener: lines and compile\n  compile=false",
        "error: listener: Fp32 cannot serve as Listener",
        "error: unknown key 'listener.evry'; did you mean listener.every?",
        "error: no option 'line' in group 'listener'; did you mean listener=lines?",
    ],
)
def test_a_group_is_one_row(said: str, line: str):
    assert line in said
