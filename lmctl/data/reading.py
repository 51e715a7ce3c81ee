"""Text files and streams, plain or compressed, read as lines; whatever is wrong with one is a DataError.

Text is strict UTF-8 (byte order marks are dropped). Compression is recognised by content, so a `.gz` that is not
gzip is reported instead of read as text. Nothing but `\\n` and `\\r` ends a line: not U+2028, not U+0085, not `\\f`.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import shlex
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

from lmctl.core import progress
from lmctl.data.files import COMPRESSED_SUFFIXES, BadFile, text_files, unreadable
from lmctl.data.text_encoding import advice, binary, conversion, wide

__all__ = ["aligned_lines", "aligned_lines_of", "fingerprint", "lines", "problem", "text_files"]

_BLOCK = 1 << 20
_SAMPLE = 1 << 14
"""Bytes from which an encoding is guessed."""
_HEAD = 256
_BOM = "\ufeff"
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}


def lines(path: Path) -> Iterator[str]:
    """The lines of one file without their line ends (`\\n`, `\\r\\n`, or `\\r` as on old Macs)."""
    return _cut(_decoded(_file_blocks(path), str(path), path), ("\r\n", "\r"))


def aligned_lines(path: Path) -> Iterator[str]:
    """As `lines`, where line i of one file belongs to line i of another, or of an answer: only `\\n` and `\\r\\n` end
    one, so that there are as many as `wc -l` counts (one more if the last has no end)."""
    return _cut(_decoded(_file_blocks(path), str(path), path), ("\r\n",))


def aligned_lines_of(stream: BufferedIOBase, name: str) -> Iterator[str]:
    """The lines of an open stream, plain or compressed, as soon as they come; `name` stands for it in messages."""
    return _cut(_decoded(_unpacked(stream, name, ""), name, None), ("\r\n",))


def problem(path: Path) -> BadFile | None:
    """What is wrong with a file, all of which is read for this."""
    try:
        for _ in _decoded(_file_blocks(path), str(path), path):
            pass
    except BadFile as error:
        return error
    return None


def _cut(blocks: Iterator[str], ends: tuple[str, ...]) -> Iterator[str]:
    """Lines that end with `\\n` or one of `ends`. A byte order mark at the beginning of one goes: files that were put
    one behind the other have them anywhere."""
    pending: list[str] = []
    for block in blocks:
        if "\n" not in block and not any(end in block for end in ends):
            pending.append(block)  # A line longer than a block: joined once, when its end is seen.
            continue
        whole = "".join((*pending, block))
        # A \r at the end may be the first half of \r\n.
        held = "\r" if whole.endswith("\r") else ""
        text = whole[: len(whole) - len(held)]
        for end in ends:
            text = text.replace(end, "\n")
        *complete, rest = text.split("\n")
        yield from (line.lstrip(_BOM) for line in complete) if _BOM in text else complete
        pending = [rest + held]
    last = "".join(pending).lstrip(_BOM)
    if last:
        yield last.removesuffix("\r")


def fingerprint(files: Iterable[Path]) -> str:
    """64 hex digits of the files' contents in their order; the same wherever the files lie, compressed or not."""
    files = list(files)
    progress.expect(sum(map(_size, files)))
    total = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256()
        for block in _file_blocks(file):
            digest.update(block)
        total.update(digest.digest())
    return total.hexdigest()


def _size(file: Path) -> int:
    """Its bytes; 0 if that cannot be known, which whoever reads it says."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _file_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of one file, a block at a time, unpacked."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        at = 0
        for block in _unpacked(file, str(path), path.suffix if path.suffix in COMPRESSED_SUFFIXES else ""):
            if file.seekable():  # a pipe does not know where it is
                at, before = file.tell(), at
                progress.advance(at - before)
            yield block


def _decoded(blocks: Iterator[bytes], name: str, file: Path | None) -> Iterator[str]:
    """The text of a file, a block at a time; `name` stands for it in messages, `file` in commands."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    offset, line, head, last = 0, 1, b"", b""
    for block in blocks:
        waiting = decoder.getstate()[0]
        line += last.count(b"\n")
        last = waiting + block
        head = head or block[:_HEAD]
        if b"\0" in block:
            raise _with_nul(name, file, head, offset + block.index(0))
        try:
            yield decoder.decode(block)
        except UnicodeDecodeError as error:
            where = f"at byte offset {offset - len(waiting) + error.start}"
            raise _not_utf8(name, file, head, where, line, last, error.start) from error
        offset += len(block)
    waiting = decoder.getstate()[0]
    if waiting:
        where = f"at byte offset {offset - len(waiting)}"
        raise _not_utf8(name, file, head, where, line, last, len(last) - len(waiting))


def _with_nul(name: str, file: Path | None, head: bytes, offset: int) -> BadFile:
    if (known := binary(head)) is not None:
        return BadFile(f"{name} is {known[0]}", known[1], "binary")
    if (encoding := wide(head)) is None:
        return BadFile(f"{name} looks like a binary file (NUL at byte offset {offset})", kind="binary")
    what, command = conversion(encoding, _in_shell(file))
    return BadFile(f"{name} is not UTF-8 (NUL at byte offset {offset}): {what}", command, f"not UTF-8 ({encoding}?)")


def _not_utf8(name: str, file: Path | None, head: bytes, where: str, line: int, block: bytes, start: int) -> BadFile:
    """`block` begins in line `line`, and is wrong at its byte `start`."""
    if (known := binary(head)) is not None:
        return BadFile(f"{name} is {known[0]}", known[1], "binary")
    line += block.count(b"\n", 0, start)
    sample = block[max(block.rfind(b"\n", 0, start) + 1, start - _SAMPLE // 2) :][:_SAMPLE]
    what, command = advice(_in_shell(file), sample)
    return BadFile(f"{name} is not valid UTF-8 {where}, in line {line:,}: {what}", command, "not UTF-8")


def _in_shell(file: Path | None) -> str:
    return "" if file is None else shlex.quote(str(file))


class _Begun:
    """A stream whose first bytes were read to see what it is; as a pipe, it need not be able to go back."""

    def __init__(self, stream: BufferedIOBase, head: bytes) -> None:
        self.stream = stream
        self.head = head

    def read(self, size: int) -> bytes:
        head, self.head = self.head[:size], self.head[size:]
        # What is there at once: lines from a pipe are wanted when they come.
        return head or self.stream.read1(size)


def _head(stream: BufferedIOBase) -> bytes:
    """What comes first, enough of it to know a compressed stream by."""
    head: bytes = stream.read1(_BLOCK)
    while any(magic.startswith(head) and magic != head for magic in _MAGIC) and (more := stream.read1(_BLOCK)):
        head += more
    return head


def _unpacked(stream: BufferedIOBase, name: str, suffix: str) -> Iterator[bytes]:
    """The bytes of an open stream, a block at a time, unpacked; `suffix` is what its name promises."""
    try:
        head = _head(stream)
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
        if not kind and head and suffix:
            raise BadFile(f"{name} is damaged: it does not begin like a {suffix} file", kind="damaged")
        begun = _Begun(stream, head)
        if kind == ".zst":
            yield from _zstd_blocks(begun, name)
            return
        opened = gzip.GzipFile(fileobj=cast(BinaryIO, begun)) if kind == ".gz" else begun
        while block := opened.read(_BLOCK):
            yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadFile(f"{name} is damaged: {error}", kind="damaged") from error
    except OSError as error:
        raise unreadable(name, error) from error


def _zstd_blocks(file: _Begun, name: str) -> Iterator[bytes]:
    import zstandard

    # Not stream_reader: it takes a truncated file for a short one.
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while packed := file.read(_BLOCK):
        while packed:
            try:
                begun = True
                if block := frame.decompress(packed):
                    yield block
            except zstandard.ZstdError as error:
                raise BadFile(f"{name} is damaged: {error}", kind="damaged") from error
            packed = b""
            if frame.eof:
                packed = frame.unused_data
                frame = zstandard.ZstdDecompressor().decompressobj()
                begun = False
    if begun:
        raise BadFile(f"{name} is damaged: it ends in the middle of the compressed data", kind="damaged")
