"""The floors of the house: a room imports only from floors below, and the lower floors stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"core"},
    {"config"},
    {
        *("model", "tokenizer", "data", "objective", "augment", "mix"),
        *("precision", "adversary", "distill", "compression", "optim", "schedule", "runner"),
    },
    {"plan"},
    {"run"},
    {"use", "cost"},
    {"jobs"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(
    path for path in (ROOT / "lmctl").rglob("*.py") if path != ROOT / "lmctl/__init__.py" and "conf" not in path.parts
)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "lmctl").with_suffix("").parts[0]


def imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            names.append(node.module or "")
    return names


def test_every_room_has_its_floor():
    assert {room_of(path) for path in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imports(ast.parse(path.read_text())) if name.startswith("lmctl.")}
    assert {other for other in rooms - {room} if FLOOR[other] >= FLOOR[room]} == set()


def test_private_parts_of_hydra_are_used_in_one_file_only():
    users = {path.name for path in MODULES if any("hydra._internal" in n for n in imports(ast.parse(path.read_text())))}
    assert users == {"compose.py"}


HEAVY = {"torch", "transformers", "accelerate", "tokenizers", "datasets", "matplotlib"}
LIGHT_ROOMS = ("core", "config", "cli", "verbs", "mix", "runner", "schedule")


def test_nothing_heavy_is_imported_before_there_is_work():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if room_of(path) in LIGHT_ROOMS and path.name != "stream.py"
    ]
    script = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\nprint({HEAVY} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
