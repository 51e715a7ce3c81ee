"""Reading text files and streams, plain or compressed, line by line; every failure is a DataError.

Text is strict UTF-8 (byte order marks are dropped). Compression is recognised by content, so a `.gz` that is not gzip
is an error. Only `\\n` and `\\r` end a line: not U+2028, not U+0085, not `\\f`.
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

_ZSTD_PIECE = 1 << 11
"""Compressed bytes that are decompressed at once: at most 0.1 GB come of them."""

LONGEST_LINE = 1 << 25
"""Longest line in characters: ten times the Bible. A longer one is most likely a decompression bomb, or no text."""

_SAMPLE = 1 << 14
"""Sample size in bytes for guessing an encoding."""
_HEAD = 256
_BOM = "\ufeff"
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}


def lines(path: Path) -> Iterator[str]:
    """The lines of one file without their line ends (`\\n`, `\\r\\n`, or `\\r` as on old Macs)."""
    return _split_lines(_decoded(_file_blocks(path), str(path), path), ("\r\n", "\r"), str(path))


def aligned_lines(path: Path) -> Iterator[str]:
    """As `lines`, for line-aligned files: only `\\n` and `\\r\\n` end a line, so that there are as many lines as `wc
    -l` counts (one more if the last has no end)."""
    return _split_lines(_decoded(_file_blocks(path), str(path), path), ("\r\n",), str(path))


def aligned_lines_of(stream: BufferedIOBase, name: str) -> Iterator[str]:
    """The lines of an open stream, plain or compressed, as they arrive; `name` names it in messages."""
    return _split_lines(_decoded(_decompressed(stream, name, ""), name, None), ("\r\n",), name)


def problem(path: Path) -> BadFile | None:
    """The error in a file, or None; reads all of it."""
    try:
        for _ in lines(path):
            pass
    except BadFile as error:
        return error
    return None


def _split_lines(blocks: Iterator[str], ends: tuple[str, ...], name: str) -> Iterator[str]:
    """Lines that end with `\\n` or one of `ends`. A byte order mark at the start of a line is dropped: concatenated
    files have them anywhere. BadFile, naming the file, for a line that is too long."""
    pending: list[str] = []
    length, number = 0, 1
    for block in blocks:
        length += len(block)
        if "\n" not in block and not any(end in block for end in ends):
            if length > LONGEST_LINE:
                raise _too_long(name, number)
            pending.append(block)  # A line longer than a block is joined once, at its end.
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
        length, number = len(pending[0]), number + len(complete)
    last = "".join(pending).lstrip(_BOM)
    if last:
        yield last.removesuffix("\r")


def _too_long(name: str, number: int) -> BadFile:
    return BadFile(
        f"{name}:{number}: a line of more than {LONGEST_LINE:,} characters",
        "cut it into lines, such as with: fold -s -w 10000",
        "too long a line",
    )


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 (64 hex digits) of the uncompressed contents in order, whatever the paths."""
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
    """Size in bytes; 0 if unknown (the error is reported when it is read)."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _file_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of one file, decompressed, block by block."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        at = 0
        for block in _decompressed(file, str(path), path.suffix if path.suffix in COMPRESSED_SUFFIXES else ""):
            if file.seekable():  # a pipe has no position
                at, before = file.tell(), at
                progress.advance(at - before)
            yield block


def _decoded(blocks: Iterator[bytes], name: str, file: Path | None) -> Iterator[str]:
    """The text of a file, block by block; `name` names it in messages, `file` in suggested commands."""
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
    """The error for a `block` that starts in line `line` and has the first invalid byte at `start`."""
    if (known := binary(head)) is not None:
        return BadFile(f"{name} is {known[0]}", known[1], "binary")
    line += block.count(b"\n", 0, start)
    sample = block[max(block.rfind(b"\n", 0, start) + 1, start - _SAMPLE // 2) :][:_SAMPLE]
    what, command = advice(_in_shell(file), sample)
    return BadFile(f"{name} is not valid UTF-8 {where}, in line {line:,}: {what}", command, "not UTF-8")


def _in_shell(file: Path | None) -> str:
    return "" if file is None else shlex.quote(str(file))


class _PeekedStream:
    """A stream whose first bytes were read already to detect its format; works on pipes, without seeking."""

    def __init__(self, stream: BufferedIOBase, head: bytes) -> None:
        self.stream = stream
        self.head = head

    def read(self, size: int) -> bytes:
        head, self.head = self.head[:size], self.head[size:]
        # Return what is available: lines of a pipe should not wait for a full buffer.
        return head or self.stream.read1(size)


def _first_bytes(stream: BufferedIOBase) -> bytes:
    """The first bytes, enough to detect compression."""
    head: bytes = stream.read1(_BLOCK)
    while any(magic.startswith(head) and magic != head for magic in _MAGIC) and (more := stream.read1(_BLOCK)):
        head += more
    return head


def _decompressed(stream: BufferedIOBase, name: str, suffix: str) -> Iterator[bytes]:
    """The bytes of an open stream, decompressed, block by block; `suffix` is the format that its name claims."""
    try:
        head = _first_bytes(stream)
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
        if not kind and head and suffix:
            raise BadFile(f"{name} is damaged: it does not begin like a {suffix} file", kind="damaged")
        begun = _PeekedStream(stream, head)
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


def _zstd_blocks(file: _PeekedStream, name: str) -> Iterator[bytes]:
    import zstandard

    # Not stream_reader, which does not report a truncated file.
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while packed := memoryview(file.read(_BLOCK)):
        unpacked: list[bytes] = []
        while packed:
            piece = packed[:_ZSTD_PIECE]
            try:
                unpacked.append(frame.decompress(piece))
            except zstandard.ZstdError as error:
                raise BadFile(f"{name} is damaged: {error}", kind="damaged") from error
            packed = packed[len(piece) - len(frame.unused_data) :]
            begun = not frame.eof
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            if not packed or sum(map(len, unpacked)) >= _BLOCK:
                whole = b"".join(unpacked)
                yield from (whole[start : start + _BLOCK] for start in range(0, len(whole), _BLOCK))
                unpacked = []
    if begun:
        raise BadFile(f"{name} is damaged: it ends in the middle of the compressed data", kind="damaged")
