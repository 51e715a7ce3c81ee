"""Licences of everything that lmctl depends on, from the metadata of what is installed.

    python scripts/licences.py            # a table; ends with 1 if a licence is unknown, or copyleft and not reviewed
    python scripts/licences.py --write    # the table into docs/dependencies.md

A package is listed under the first of these that needs it, directly or through others: lmctl itself, one of its extras,
the work on lmctl (`dev`).
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "dependencies.md"
BEGIN, END = "<!-- table: python scripts/licences.py --write -->", "<!-- end of table -->"
NEEDED_BY = ("lmctl", "plot", "lora", "bleu", "fast", "onnx", "gguf", "slurm", "search", "dev")
"""lmctl, then its extras."""

PERMISSIVE = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "ISC", "MIT", "MIT-CMU", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Licences, by their SPDX names, that ask for nothing but their text being kept."""
SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0", "Apache 2.0": "Apache-2.0", "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0", "BSD License": "BSD", "BSD 3-Clause License": "BSD-3-Clause",
    "ISC License": "ISC", "ISC License (ISCL)": "ISC", "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip
"""SPDX names of what older metadata and classifiers say."""
VENDORED = {
    "uPlot": ("MIT", "lmctl", "1.6.32, not installed but within lmctl: the plots of `lmctl compare`, with its text"),
}
"""Code of others that lmctl's wheel carries; the text of its licence is a file beside it (`license-files`)."""
REVIEWED = {
    "certifi": "MPL-2.0: a list of certificates, used as it is",
    "hypothesis": "MPL-2.0: used by tests, not distributed",
    "pathspec": "MPL-2.0: used by the build, not distributed",
    "tqdm": "MPL-2.0 AND MIT: files are used as they are",
}
"""Packages with a licence that is copyleft, weakly, and why that is no obstacle. None of their code is in lmctl."""


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--write", action="store_true", help="write the table into docs/dependencies.md")
    write = options.parse_args().write
    rows, problems = [], []
    for package, needed_by in dependencies().items():
        licence = licence_of(package)
        name = package.metadata["Name"]
        if not permissive(licence) and name not in REVIEWED:
            problems.append(f"{name}: {licence or 'no licence in its metadata'}")
        rows.append(f"| {name} | {licence} | {needed_by} | {REVIEWED.get(name, '').partition(': ')[2]} |")
    rows += [f"| {name} | {' | '.join(about)} |" for name, about in VENDORED.items()]
    table = "\n".join(["| package | licence | needed by | |", "|---|---|---|---|", *rows])
    if write:
        text = DOCS.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    else:
        print(table)
    print(*problems, sep="\n", file=sys.stderr)
    return int(bool(problems))


def dependencies() -> dict[Distribution, str]:
    """Installed packages that lmctl or an extra of it needs, and which of them; by name."""
    found: dict[str, tuple[Distribution, str]] = {}
    for needed_by in NEEDED_BY:
        extra = "" if needed_by == "lmctl" else needed_by
        waiting = [f"lmctl[{extra}]" if extra else "lmctl"]
        seen = set()
        while waiting:
            wanted = Requirement(waiting.pop())
            if str(wanted) in seen:
                continue
            seen.add(str(wanted))
            try:
                package = distribution(wanted.name)
            except PackageNotFoundError:  # of another platform
                continue
            if normal(wanted.name) != "lmctl":
                found.setdefault(normal(wanted.name), (package, needed_by))
            waiting += [line for line in package.requires or [] if needed(Requirement(line), wanted.extras)]
    return dict(found[name] for name in sorted(found))


def needed(requirement: Requirement, extras: set[str]) -> bool:
    """Whether it is needed on this platform, with these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def licence_of(package: Distribution) -> str:
    """The licence by its SPDX name, from the expression, the field or the classifiers; empty if there is none."""
    metadata = package.metadata.json
    if expression := metadata.get("license_expression"):
        return str(expression)
    field = str(metadata.get("license") or "").strip()
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get("classifier", []) if line.startswith("License")]
    for words in ([field] if "\n" not in field else []) + classifiers:
        spelt = SPELLINGS.get(words, words)
        if spelt in PERMISSIVE | {"BSD"} or " AND " in spelt or "MPL" in spelt:
            return spelt
    return field.splitlines()[0] if field else ", ".join(classifiers)


def permissive(licence: str) -> bool:
    """Whether all parts of an expression, or one where there is a choice, are permissive."""
    choices = [re.split(r" AND ", choice.strip("() ")) for choice in licence.split(" OR ")]
    return any(all(part.strip("() ") in PERMISSIVE | {"BSD"} for part in parts) for parts in choices)


def normal(name: str) -> str:
    """A distribution's name as packaging compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    raise SystemExit(main())
