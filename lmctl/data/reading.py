"""Text files, plain or compressed, read as a stream of lines; whatever is wrong with one is a DataError.

Text is strict UTF-8 (a byte order mark is dropped). Compression is recognised by content, so a `.gz` that is not
gzip is reported instead of read as text.
"""

from __future__ import annotations

import codecs
import difflib
import glob
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmctl.core.errors import DataError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".raw", ".tokens")
"""What counts as text in a folder, each also with .gz or .zst behind it; a file or glob may have any name."""

COMPRESSED_SUFFIXES = (".gz", ".zst")

_BLOCK = 1 << 20
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}


def text_files(path: str, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> list[Path]:
    """The files that `path` names, sorted: one file, a glob (`**` allowed), or a folder with all its subfolders.

    In folders only `suffixes` count, in either case, and hidden files and folders are left out.
    """
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            return _in_folder(place, suffixes)
        if place.exists():
            return [place]
    except OSError as error:
        raise _unreadable(place, error) from error
    if glob.has_magic(str(place)):
        files = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if Path(name).is_file())
        if files:
            return files
        raise DataError(f"no file matches {path}")
    raise DataError(f"{path} does not exist", nearest_place(place))


def lines(path: Path) -> Iterator[str]:
    """The lines of one file without their line ends (`\\n`, `\\r\\n` or `\\r`)."""
    pending: list[str] = []
    for block in _decoded(path):
        whole = "".join((*pending, block)) if "\n" in block or "\r" in block else None
        if whole is None:
            pending.append(block)  # A line longer than a block: joined once, when its end is seen.
            continue
        # A \r at the end may be the first half of \r\n.
        held = "\r" if whole.endswith("\r") else ""
        *complete, rest = whole[: len(whole) - len(held)].replace("\r\n", "\n").replace("\r", "\n").split("\n")
        yield from complete
        pending = [rest + held]
    last = "".join(pending)
    if last:
        yield last.removesuffix("\r")


def fingerprint(files: Iterable[Path]) -> str:
    """64 hex digits of the files' contents in their order; the same wherever the files lie."""
    total = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256()
        try:
            with open(file, "rb") as opened:
                while block := opened.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise _unreadable(file, error) from error
        total.update(digest.digest())
    return total.hexdigest()


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    def fail(error: OSError) -> None:
        raise _unreadable(Path(error.filename or folder), error) from error

    found = []
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            bare = name.lower()
            for suffix in COMPRESSED_SUFFIXES:
                bare = bare.removesuffix(suffix)
            if not name.startswith(".") and bare.endswith(suffixes):
                found.append(Path(place, name))
    if not found:
        raise DataError(
            f"{folder} has no {'text ' * (suffixes is TEXT_SUFFIXES)}files "
            f"({', '.join(suffixes)}, each also with .gz or .zst)",
            f"for other names give a pattern: {folder / '**' / '*'}",
        )
    return sorted(found)


def nearest_place(place: Path) -> str | None:
    """A remedy for a path that does not exist: the sibling with the most similar name at the first wrong step."""
    for step in reversed([place, *place.parents]):
        if step.exists():
            continue
        try:
            siblings = sorted(entry.name for entry in step.parent.iterdir())
        except OSError:
            return None
        close = difflib.get_close_matches(step.name, siblings, n=1)
        return f"did you mean {step.parent / close[0]}?" if close else None
    return None


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, PermissionError):
        return DataError(f"{path} may not be read: permission denied")
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _decoded(path: Path) -> Iterator[str]:
    """The text of one file, a block at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    offset = 0
    for block in _decompressed(path):
        waiting = len(decoder.getstate()[0])
        if b"\0" in block:
            wide = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            hint = "it may be UTF-16: convert it to UTF-8" if wide else None
            place = offset + block.index(b"\0")
            raise DataError(f"{path} looks like a binary file (NUL at byte offset {place})", hint)
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, offset - waiting + error.start) from error
        if offset == 0:
            text = text.removeprefix("\ufeff")
        offset += len(block)
        yield text
    waiting = len(decoder.getstate()[0])
    if waiting:
        raise _not_utf8(path, offset - waiting)


def _not_utf8(path: Path, offset: int) -> DataError:
    return DataError(f"{path} is not valid UTF-8 at byte offset {offset}", "convert it with iconv -t UTF-8")


def _decompressed(path: Path) -> Iterator[bytes]:
    """The bytes of one file, a block at a time, unpacked."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            kind = next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), None)
            if kind is None and head and path.suffix in COMPRESSED_SUFFIXES:
                raise DataError(f"{path} is damaged: it does not begin like a {path.suffix} file")
            file.seek(0)
            if kind == ".zst":
                yield from _zstd_blocks(path)
                return
            opened = gzip.GzipFile(fileobj=file) if kind == ".gz" else file
            while block := opened.read(_BLOCK):
                yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    import zstandard

    # Not stream_reader: it takes a truncated file for a short one.
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    with open(path, "rb") as file:
        while packed := file.read(_BLOCK):
            while packed:
                try:
                    begun = True
                    if block := frame.decompress(packed):
                        yield block
                except zstandard.ZstdError as error:
                    raise DataError(f"{path} is damaged: {error}") from error
                packed = b""
                if frame.eof:
                    packed = frame.unused_data
                    frame = zstandard.ZstdDecompressor().decompressobj()
                    begun = False
    if begun:
        raise DataError(f"{path} is damaged: it ends in the middle of the compressed data")
