"""Finding files: a path is a file, a glob pattern, or a folder with all subfolders; the same for every source."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from lmctl.core.errors import DataError
from lmctl.core.files import nearest_place
from lmctl.data.file_status import check_lasting, is_pipe, not_plain

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".raw", ".tokens")
"""Suffixes of text files in a folder, also followed by .gz or .zst; a file or pattern may have any name."""

COMPRESSED_SUFFIXES = (".gz", ".zst")

LOST = "link to nothing"
"""The kind of a link whose target is missing: left out of a folder or pattern, an error where it was named."""


class BadFile(DataError):
    """A file that cannot be read in the expected format; `kind` is the reason in two or three words, for counting."""

    def __init__(self, message: str, hint: str | None = None, kind: str = "unreadable") -> None:
        super().__init__(message, hint)
        self.kind = kind


@dataclass
class Found:
    """The files at a path, and what else is in its folders."""

    files: list[Path] = field(default_factory=list)
    """Sorted, without duplicates through links."""
    bad: list[BadFile] = field(default_factory=list)
    """Folders and files that may not be read."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of ignored files in the folders by kind (their suffix, "hidden")."""


def find(path: str, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> Found:
    """The files at `path`: one file, a glob pattern (`**` allowed), or a folder with all its subfolders.

    In a folder, only names that end with one of `suffixes` (any case, compressed or not) are used, and no hidden files
    or folders; nor pipes, devices and broken links, which are counted. Links are followed, and no folder is visited
    twice. DataError if there are no files.
    """
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            return _in_folder(place, suffixes)
        if place.exists():
            if not is_pipe(place) and (kind := not_plain(place)):
                raise BadFile(f"{path} is {kind}, and text is read from files", kind="no plain file")
            return Found([place])
    except OSError as error:
        raise unreadable(place, error) from error
    if glob.has_magic(str(place)):
        return _matching(place, path)
    if place.is_symlink():
        raise _broken_link(place)
    raise DataError(f"{path} does not exist", nearest_place(place))


def text_files(path: str, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> list[Path]:
    """The files at `path`, as from `find`; DataError if one of them is unreadable."""
    found = find(path, suffixes)
    check_lasting(found.files)
    if found.bad:
        raise found.bad[0] if len(found.bad) == 1 else all_bad(found.bad, len(found.files) + len(found.bad))
    return found.files


def all_bad(bad: Sequence[BadFile], total: int, *remedies: str) -> DataError:
    """One error for all unreadable files of a path, naming the first five."""
    shown = [f"  {error}" for error in bad[:5]]
    more = [f"  and {len(bad) - 5:,} more"] if len(bad) > 5 else []
    head = f"{len(bad):,} of {total:,} files cannot be read:"
    hints = [error.hint for error in bad if error.hint]
    return DataError("\n".join([head, *shown, *more]), "\n  ".join([*hints[:1], *remedies]) or None)


def counted(kinds: Counter[str]) -> str:
    """Counts as text, most frequent first: `.html 3, .csv 2, no suffix 1`."""
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def kind_of(file: Path) -> str:
    """Its suffix in lower case, including that of compression: `.html`, `.csv.gz`."""
    name = bare_name(file.name)
    suffix = Path(name).suffix
    return (suffix + file.name.lower()[len(name) :]) if suffix else "without suffix"


def bare_name(name: str) -> str:
    """The name in lower case without the suffix of compression."""
    name = name.lower()
    return next((name.removesuffix(suffix) for suffix in COMPRESSED_SUFFIXES if name.endswith(suffix)), name)


def unreadable(path: Path | str, error: OSError) -> BadFile:
    """The error for an OSError while reading `path`."""
    if isinstance(error, PermissionError):
        return BadFile(f"{path} may not be read: permission denied", kind="permission denied")
    return BadFile(f"{path} cannot be read: {error.strerror or error}")


def _broken_link(link: Path) -> BadFile:
    return BadFile(f"{link} is a link to {os.readlink(link)}, which does not exist", kind=LOST)


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> Found:
    found = Found()
    for file, problem in _walk(folder, hidden=False):
        named = bare_name(file.name).endswith(suffixes)
        if isinstance(problem, str):
            found.left_out[problem] += 1
        elif problem is not None and (named or file.is_dir()):
            found.bad.append(problem)
        elif named:
            found.files.append(file)
        else:
            found.left_out[kind_of(file)] += 1
    _deduplicate(found)
    if not found.files and not found.bad:
        what = "text files" if suffixes is TEXT_SUFFIXES else "files"
        there = f"; it has {counted(found.left_out)}" if found.left_out else ""
        raise DataError(
            f"{folder} has no {what} ({', '.join(suffixes)}, each also with .gz or .zst){there}",
            f"for other names give a pattern: {folder / '**' / '*'}",
        )
    return found


def _matching(place: Path, path: str) -> Found:
    found = Found()
    folders = 0
    for file, problem in _recursive_glob(place) if "**" in place.parts else _glob(place):
        if isinstance(problem, BadFile):
            found.bad.append(problem)
        elif file.is_dir():
            folders += 1
        elif problem is not None:
            found.left_out[problem] += 1
        else:
            found.files.append(file)
    _deduplicate(found)
    if not found.files and not found.bad:
        if folders:
            raise DataError(f"only folders match {path}", f"what is in them: {Path(path, '**', '*')}")
        there = f"; it matches {counted(found.left_out)}" if found.left_out else ""
        raise DataError(f"no file matches {path}{there}", nearest_place(_root(place)))
    return found


def _glob(place: Path) -> Iterator[tuple[Path, BadFile | str | None]]:
    for file in map(Path, glob.glob(str(place))):
        try:
            yield file, "no plain file" if not_plain(file) else None
        except OSError as error:
            yield file, _without_status(file, error)


def _without_status(file: Path, error: OSError) -> BadFile | str:
    """Why a file that nobody named has no status."""
    return LOST if file.is_symlink() and not file.exists() else unreadable(file, error)


def _recursive_glob(place: Path) -> Iterator[tuple[Path, BadFile | str | None]]:
    """Files that match a pattern with `**`. `glob` would not terminate on links that form a loop."""
    root = _root(place)
    pattern = place.parts[len(root.parts) :]
    if not root.is_dir():
        return
    for file, problem in _walk(root, hidden=any(part.startswith(".") for part in pattern)):
        if _matches(file.relative_to(root).parts, pattern):
            yield file, problem


def _root(place: Path) -> Path:
    """The part of a pattern before its first wildcard."""
    parts = place.parts
    return Path(*parts[: next(number for number, part in enumerate(parts) if glob.has_magic(part))])


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a relative path matches the pattern; hidden names only if the pattern has a dot."""
    if pattern == ("**",):
        return bool(parts) and not any(part.startswith(".") for part in parts)
    if not pattern or not parts:
        return not pattern and not parts
    name, rest = parts[0], parts[1:]
    hidden = name.startswith(".") and not pattern[0].startswith(".")
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (not hidden and _matches(rest, pattern))
    return not hidden and fnmatchcase(name, pattern[0]) and _matches(rest, pattern[1:])


def _walk(folder: Path, hidden: bool) -> Iterator[tuple[Path, BadFile | str | None]]:
    """All files below a folder, also through links; each with its error, or why it is ignored."""
    top = folder.stat()
    seen = {(top.st_dev, top.st_ino)}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            yield here, unreadable(here, error)
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith(".") and not hidden:
                yield path, "hidden"
                continue
            try:
                status = entry.stat()
            except OSError as error:
                yield path, _without_status(path, error)
                continue
            if not stat.S_ISDIR(status.st_mode):
                plain = stat.S_ISREG(status.st_mode) and not (entry.is_symlink() and not_plain(path))
                yield path, None if plain else "no plain file"
            elif (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                waiting.append(path)


def _deduplicate(found: Found) -> None:
    """Sort the files, and drop links to files in the list."""
    found.files.sort()
    found.bad.sort(key=str)
    links = {file for file in found.files if file.is_symlink()}
    if not links:
        return
    seen = {_identity(file) for file in found.files if file not in links}
    kept = []
    for file in found.files:
        if file not in links:
            kept.append(file)
        elif (identity := _identity(file)) not in seen:
            seen.add(identity)
            kept.append(file)
    if len(kept) < len(found.files):
        found.left_out["second link to a file"] += len(found.files) - len(kept)
    found.files = kept


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino
