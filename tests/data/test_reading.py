"""Text files: compression, line ends, encodings, damaged archives, fingerprints of contents."""

from __future__ import annotations

import gzip
import random

import pytest
import zstandard
from anybody import anybody

from lmctl.core.errors import DataError
from lmctl.data.reading import fingerprint, lines, text_files


def write(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refusal(path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(lines(path))
    assert str(path) in str(caught.value)
    return caught.value


TEXT = "Grüße, 世界。\n\nsecond\n" * 100


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
def test_the_same_lines_from_every_wrapping(tmp_path, pack):
    path = write(tmp_path / "corpus.any", pack(b"\xef\xbb\xbf" + TEXT.encode()))
    assert list(lines(path)) == TEXT.splitlines()


def test_several_compressed_parts_in_one_file_are_all_read(tmp_path):
    for pack in (gzip.compress, zstandard.compress):
        path = write(tmp_path / "parts.txt", pack(b"one\ntw") + pack(b"o\nthree"))
        assert list(lines(path)) == ["one", "two", "three"]


def test_line_ends_of_all_systems_and_lines_longer_than_a_block(tmp_path):
    long = "x" * (5 << 19)
    # The \r of the third line end is the last byte of a block of 2^20.
    head = "a\rb\r\n"
    filler = "y" * ((1 << 20) - len(head) - 1)
    path = write(tmp_path / "mixed.txt", f"{head}{filler}\r\nc\n{long}\nlast\r".encode())
    assert list(lines(path)) == ["a", "b", filler, "c", long, "last"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
def test_invalid_utf8_is_placed_in_the_unpacked_text(tmp_path, pack):
    good = "é".encode() * 800_000  # Across the end of a block.
    path = write(tmp_path / "latin.txt", pack(good + b"caf\xe9 au lait"))
    assert f"byte offset {len(good) + 3}" in str(refusal(path))


def test_invalid_utf8_is_placed_in_its_line(tmp_path):
    good = "é is a letter.\n".encode() * 200_000  # Several blocks.
    assert "in line 200,001" in str(refusal(write(tmp_path / "latin.txt", good + b"caf\xe9 au lait\n" + good)))
    assert "in line 200,001" in str(refusal(write(tmp_path / "cut.txt", good + b"caf\xc3")))
    assert "byte offset 3, in line 1" in str(refusal(write(tmp_path / "short.txt", b"abc\xe4\xb8")))


def test_binary_files_are_named_as_such(tmp_path):
    assert "binary file" in str(refusal(write(tmp_path / "model.txt", b"\x7fELF\x00\xff\xfe")))
    utf16 = refusal(write(tmp_path / "utf16.txt", "hello".encode("utf-16")))
    assert "UTF-16" in str(utf16.hint)


with_checksum = zstandard.ZstdCompressor(write_checksum=True).compress


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", with_checksum)], ids=["gz", "zst"])
def test_damaged_archives(tmp_path, suffix, pack):
    packed = pack(random.Random(0).randbytes(50_000).hex().encode())
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    for data in (packed[: len(packed) // 2], packed[:-3], bytes(flipped), b"not packed at all"):
        assert "damaged" in str(refusal(write(tmp_path / f"corpus.txt{suffix}", data)))


def test_no_permission(tmp_path):
    path = write(tmp_path / "secret.txt", b"text")
    path.chmod(0)
    with anybody():
        assert "permission" in str(refusal(path))


def test_what_is_not_there(tmp_path):
    write(tmp_path / "corpus" / "train.txt", b"text")
    for wrong in ("corpus/trian.txt", "corpsu/train.txt"):
        with pytest.raises(DataError) as caught:
            text_files(str(tmp_path / wrong))
        assert "did you mean" in str(caught.value.hint)
    with pytest.raises(DataError, match="no file matches"):
        text_files(str(tmp_path / "*.nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no text files .*\.txt"):
        text_files(str(tmp_path / "empty"))


def test_a_file_that_was_compressed_since_is_the_same_text(tmp_path):
    plain = fingerprint([write(tmp_path / "a.txt", b"one\ntwo\n" * 1000)])
    for name, pack in (("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress), ("gz.txt", gzip.compress)):
        assert fingerprint([write(tmp_path / name, pack(b"one\ntwo\n" * 1000))]) == plain
        assert fingerprint([write(tmp_path / name, pack(b"one\ntwo\n" * 1001))]) != plain


def test_the_fingerprint_follows_contents_and_not_places(tmp_path):
    here = [write(tmp_path / "here" / name, name.encode()) for name in ("a", "b")]
    there = [write(tmp_path / "there" / name, name[0].encode()) for name in ("a1", "b1")]
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(here[::-1])
    write(here[0], b"A")
    assert fingerprint(here) != fingerprint(there)
    # The border between files counts.
    assert fingerprint([write(tmp_path / "1", b"ab"), write(tmp_path / "2", b"c")]) != fingerprint(
        [write(tmp_path / "3", b"a"), write(tmp_path / "4", b"bc")]
    )
