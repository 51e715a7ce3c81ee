"""export.json: what an export is, for programs."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmctl import __version__
from lmctl.core.files import digest
from lmctl.export.base import ExportFormat
from lmctl.export.subject import Subject
from lmctl.export.verify import Agreement


def record(folder: Path, subject: Subject, format: ExportFormat, agreement: Agreement | None) -> dict[str, Any]:
    """Formats, versions, the verification (null: not verified), and size and sha256 of every file."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    versions = {name: _version(name) for name in ("torch", "transformers", *format.libraries)}
    return {
        "model": subject.name,
        "format": format.name,
        "dtype": subject.dtype,
        "quantize": subject.quantize_name or None,
        "lmctl": __version__,
        "packages": versions,
        "verified": None if agreement is None else asdict(agreement),
        "files": {
            str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": digest(file)} for file in files
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
