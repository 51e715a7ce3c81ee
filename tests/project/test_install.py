"""The wheel: it carries the YAML, and the command runs from it with the checkout out of sight."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from command import ROOT

from lmctl.core.extras import TRACKERS


def pip(*arguments: str | Path) -> None:
    """Run pip without a network and without dependencies; its output is shown when it fails."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ROOT, "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("lmctl-*.whl")
    return built


def run_python(installed: Path, away: Path, *arguments: str) -> str:
    """Run Python from an unrelated directory, the installed folder first on the path, and return what it prints."""
    away.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "120", "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=away, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_carries_every_option_and_holds_the_package_only(wheel: Path) -> None:
    expected = {f"lmctl/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "lmctl").rglob("*.py")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "lmctl/compare/page_files").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        assert sorted(expected - set(archive.namelist())) == []
        assert {name.split("/")[0].split("-")[0] for name in archive.namelist()} == {"lmctl"}


def test_command_works_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    installed, away = tmp_path / "installed", tmp_path / "away"
    pip("install", wheel, "--target", installed)
    where = run_python(installed, away, "-c", "import lmctl; print(lmctl.__file__)")
    assert Path(where.strip()) == installed / "lmctl" / "__init__.py"
    said = run_python(installed, away, "-m", "lmctl", "list")
    assert all(f"{word} " in said for word in ("model", "precision", "mix", "bert_tiny"))
    assert list(away.iterdir()) == [], "asking for a list leaves no files behind"


def imported_names() -> set[str]:
    """The top-level modules that the package imports anywhere, inside functions included."""
    names = set()
    for path in (ROOT / "lmctl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"lmctl"}


def declared_but(*extras: str) -> set[str]:
    """The distributions that pyproject.toml names, but for those of these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    others = [line for name, lines in project["optional-dependencies"].items() if name not in extras for line in lines]
    return {normal(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"] + others}


def test_what_is_imported_is_declared() -> None:
    declared = declared_but("dev")
    distributions = packages_distributions()
    undeclared = {
        name for name in imported_names() if not declared & {normal(dist) for dist in distributions.get(name, [name])}
    }
    assert sorted(undeclared) == []


def test_every_dependency_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.split("==")[0]) for line in pins if "==" in line}
    assert sorted(declared_but("lm-eval", "site", *TRACKERS.values()) - {"lmctl"} - pinned) == []


def test_the_locks_have_the_versions_of_the_constraints() -> None:
    assert subprocess.run([sys.executable, ROOT / "scripts" / "lock.py", "--check"], check=False).returncode == 0


def test_every_licence_is_known_and_permissive_or_reviewed() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "licences.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "| torch | Apache-2.0" in done.stdout


def test_a_wheel_built_elsewhere_and_later_has_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """Neither the folder, nor the time, nor when files were changed is in it."""
    copy = tmp_path / "copy"
    kept = [*("conf", "lmctl"), *("LICENSE", "README.md", "pyproject.toml", ".gitignore")]
    copy.mkdir()
    for name in kept:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    for path in copy.rglob("*"):
        os.utime(path, (10**9, 10**9))
    pip("wheel", copy, "--no-build-isolation", "--wheel-dir", tmp_path / "again")
    (again,) = (tmp_path / "again").glob("lmctl-*.whl")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def normal(name: str) -> str:
    """A distribution's name as packaging compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()
