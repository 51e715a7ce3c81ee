"""Wheel and sdist, each installed into a clean place: the command answers there, in every Python that is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from command import ROOT

pytestmark = pytest.mark.slow

OTHERS = ("python3.12", "python3.13")
"""Interpreters beside this one, where they are on PATH."""
FOR_ANSWERS = ("hydra-core", "omegaconf", "rich", "pyyaml", "numpy", "filelock", "psutil", "safetensors")
"""What help, lists and config errors need; torch has no wheels of a bearable size for other interpreters."""

UNREACHABLE = re.compile(r"Retrying|ConnectionError|NewConnectionError|Temporary failure|timed out")
"""What pip says where there is no network."""


def run(*words: str | Path, cwd: Path, ends: int = 0) -> str:
    """What a command prints, without this checkout in sight; it must end with `ends`."""
    around = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LMCTL_CACHE")}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == ends, done.stdout + done.stderr
    return done.stdout + done.stderr


def pip(*words: str | Path, python: Path | str = sys.executable) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *words, cwd=Path("/"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of this checkout, its sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder, cwd=ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    pip("wheel", sdist, "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder / "again")
    (again,) = (folder / "again").glob("*.whl")
    return {"wheel": wheel, "sdist": sdist, "again": again}


def test_a_wheel_from_the_sdist_is_the_wheel(built: dict[str, Path]):
    assert built["again"].read_bytes() == built["wheel"].read_bytes()


def test_the_sdist_has_what_the_repository_has_and_no_more(built: dict[str, Path]):
    with tarfile.open(built["sdist"]) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no repository of git")
    assert there == {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.mark.parametrize("form", ["wheel", "sdist"])
def test_the_command_works_where_it_is_installed(form: str, built: dict[str, Path], tmp_path: Path):
    """With the packages of this environment, but not with its lmctl."""
    python = new_environment(sys.executable, tmp_path / "venv")
    beside = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (beside / "packages.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
    pip("install", built[form], "--no-deps", "--no-index", "--no-build-isolation", python=python)
    answers(python, tmp_path)
    said = run(python.parent / "lmctl", "train", "mix=mlm", "model=gpt2_tiny", cwd=tmp_path, ends=2)
    assert "error: mix.tasks.corpus: MaskedLM needs an encoder, and Gpt2 is a decoder" in said


@pytest.mark.parametrize("name", OTHERS)
def test_other_interpreters_answer(name: str, built: dict[str, Path], tmp_path: Path):
    """Every file compiles without a warning; help, lists and config errors work."""
    found = shutil.which(name)
    if found is None or subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no {name} on PATH")
    python = new_environment(found, tmp_path / "venv")
    try:
        pip("install", "-q", "-c", ROOT / "constraints.txt", *FOR_ANSWERS, python=python)
    except AssertionError as error:
        if UNREACHABLE.search(str(error)) is None:  # a version that this interpreter cannot have is a fault
            raise
        pytest.skip(f"packages for {name} cannot be had here: {str(error)[-300:]}")
    pip("install", built["wheel"], "--no-deps", "--no-index", python=python)
    answers(python, tmp_path)
    place = run(python, "-c", "import lmctl; print(lmctl.__path__[0])", cwd=tmp_path).strip()
    run(python, "-W", "error", "-m", "compileall", "-q", "-f", place, cwd=tmp_path)


def new_environment(python: str, folder: Path) -> Path:
    run(python, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    return folder / "bin" / "python"


def answers(python: Path, cwd: Path) -> None:
    """Help, a list, and a mistake, by the installed command."""
    lmctl = python.parent / "lmctl"
    where = run(python, "-c", "import lmctl; print(lmctl.__file__)", cwd=cwd).strip()
    assert Path(where).is_relative_to(python.parent.parent)
    assert "usage: lmctl VERB" in run(lmctl, "--help", cwd=cwd)
    said = run(lmctl, "list", cwd=cwd)
    assert all(f"{word} " in said for word in ("model", "precision", "mix", "bert_tiny"))
    assert "error: unknown key 'optim.lrr'; did you mean optim.lr?" in run(
        lmctl, "train", "optim.lrr=1", cwd=cwd, ends=2
    )
