"""Lock files: constraints.txt with the hashes of every file that the package index has of each version.

    pip install uv
    python scripts/lock.py             # after constraints.txt has changed
    python scripts/lock.py --check     # do the locks name the versions of constraints.txt? Needs no network

requirements/build.lock has what builds packages, requirements/all.lock everything; scripts/setup.sh installs both with
`pip install --require-hashes`. The hashes are those of all files of a version, so that one lock serves every system
and Python. torch is in neither: its builds (CPU, CUDA) have one version, other files, and come from other indexes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
BUILD = {"setuptools", "editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"}
"""hatchling and what it needs builds lmctl; setuptools builds the one dependency that has no wheels."""
UNHASHED = {"torch"}
HEAD = "# Made by scripts/lock.py from constraints.txt. Do not edit.\n"


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true", help="write nothing; 1 if a lock has other versions")
    if options.parse_args().check:
        stale = [file.name for file, pins in locks().items() if versions(file) != versions_of(pins)]
        for name in stale:
            print(f"{name} has not the versions of constraints.txt: python scripts/lock.py", file=sys.stderr)
        return int(bool(stale))
    for file, pins in locks().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(HEAD + with_hashes(pins), encoding="utf-8")
    return 0


def locks() -> dict[Path, list[str]]:
    """The lock files, and the lines of constraints.txt that belong into each."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#") and name_of(line) not in UNHASHED]
    folder = ROOT / "requirements"
    return {folder / "all.lock": pins, folder / "build.lock": [pin for pin in pins if name_of(pin) in BUILD]}


def versions(lock: Path) -> dict[str, str]:
    """The versions in a lock that have a hash, by package."""
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    return versions_of(re.findall(r"^(\S+==[^\\\n]+?) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))


def versions_of(pins: list[str]) -> dict[str, str]:
    """The version of each package, by its name as packaging compares names."""
    return {name_of(pin): pin.split("==")[1] for pin in pins}


def with_hashes(pins: list[str]) -> str:
    """The pins in the form of requirements, with hashes."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(pins))
        wanted.flush()
        compile_ = ["pip", "compile", "--no-deps", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
        command = [sys.executable, "-m", "uv", *compile_, "--python-version", "3.11", wanted.name]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("lock.py needs uv: pip install uv")
    return done.stdout


def name_of(pin: str) -> str:
    """A package's name as packaging compares them."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=;\s]", pin)[0]).lower()


if __name__ == "__main__":
    raise SystemExit(main())
