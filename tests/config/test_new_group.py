"""A config group more is one row, a base class and its options: nothing else has to know of it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from command import ROOT

FILES = {
    "lmctl/tracker/__init__.py": "",
    "lmctl/tracker/base.py": """
from abc import abstractmethod
from lmctl.core.component import Component

class Tracker(Component):
    @abstractmethod
    def track(self, name: str) -> None: ...
""",
    "lmctl/tracker/lines.py": """
from dataclasses import dataclass
from lmctl.core.errors import ConfigError
from lmctl.tracker.base import Tracker

@dataclass(frozen=True)
class Lines(Tracker):
    every: int = 1

    def track(self, name): ...

    def check(self, plan):
        if plan.compile:
            yield ConfigError("tracker: lines and compile", "compile=false")
""",
    "conf/tracker/lines.yaml": (
        "# A line for each metric\n_target_: lmctl.tracker.lines.Lines\nevery: 2   # steps between lines\n"
    ),
    "conf/tracker/wrong.yaml": "# Of another group\n_target_: lmctl.precision.fp32.Fp32\n",
}
ROW = '    tracker: Tracker = group("lines", "where metrics go besides the record", identity=False)\n'
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

print(Plan.from_config(composed("train", "tracker.every=3")).tracker)
assert composed("plan").tracker.every == 2 and composed("distill", "teacher=x").tracker.every == 2
one, other = (OmegaConf.to_container(composed("train", f"tracker.every={n}"), resolve=True) for n in (1, 2))
assert changed_keys(one, other) == []
for words in (["list", "tracker"], ["train", "--help", "tracker"], ["train", "--help"]):
    assert main(words) == 0
for words in (["compile=true"], ["tracker=wrong"], ["tracker.evry=1"], ["tracker=line"]):
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
    table.write_text(text.replace("\n\n\n", "\nfrom lmctl.tracker.base import Tracker\n\n\n", 1))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "Lines(every=3)",
        "tracker (default lines)\n  lines  A line for each metric",
        "tracker=   default lines   where metrics go besides the record",
        "tracker.every",
        "error: tracker: lines and compile\n  compile=false",
        "error: tracker: Fp32 cannot serve as Tracker",
        "error: unknown key 'tracker.evry'; did you mean tracker.every?",
        "error: no option 'line' in group 'tracker'; did you mean tracker=lines?",
    ],
)
def test_a_group_is_one_row(said: str, line: str):
    assert line in said
