"""Text that is not UTF-8 is refused with what it may be and how to convert it, from a file as from standard input."""

from __future__ import annotations

import io
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmctl.core.errors import ConfigError, DataError
from lmctl.data.reading import lines
from lmctl.data.text_encoding import guess
from lmctl.inference.input_lines import incoming

ENGLISH = "The committee met again on Monday. It decided nothing, and everybody went home early. "
FRENCH = "Le café est fermé à midi. Déjà vu, n'est-ce pas ? Les élèves préfèrent l'été. "
CHINESE = "今天的天气很好，我们在公园里。他说这是不可能的，但是大家都来了。"
TAIWANESE = "今天的天氣很好，我們在公園裡。他說這是不可能的，但是大家都來了。"
JAPANESE = "今日はとても天気がいいので、公園に行きました。みんなが来るとは思わなかった。"
KOREAN = "오늘은 날씨가 아주 좋아서 우리는 공원에 갔다. 그는 이것이 불가능하다고 말했다. "
RUSSIAN = "Сегодня хорошая погода, и мы пошли в парк. Он сказал, что это невозможно. "


@pytest.mark.parametrize(
    ("content", "encoding", "name"),
    [
        *((ENGLISH, encoding, "UTF-(16|32)") for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        (CHINESE, "gbk", "GBK"),
        (ENGLISH + CHINESE, "gb18030", "GBK"),
        (TAIWANESE, "big5", "BIG5"),
        (JAPANESE, "shift_jis", "SHIFT_JIS"),
        (JAPANESE, "euc_jp", "EUC-JP"),
        (KOREAN, "euc_kr", "EUC-KR"),
        (RUSSIAN, "cp1251", "CP1251"),
        (RUSSIAN, "koi8_r", "KOI8-R"),
        (FRENCH, "latin-1", "ISO-8859-1"),
        (FRENCH.replace("'", "’"), "cp1252", "CP1252"),
        (ENGLISH + "“caf\xe9” ", "cp1252", "CP1252"),
    ],
)
def test_encodings_are_guessed_and_the_command_works(tmp_path, content, encoding, name):
    file = tmp_path / "it's text.txt"
    file.write_bytes(content.encode(encoding))
    with pytest.raises(DataError, match=f"(it may be |is not UTF-8 .*){name}") as caught:
        list(lines(file))
    command = str(caught.value.hint).partition(": ")[2]
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.decode().lstrip("\ufeff") == content


@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_are_no_language(data):
    western, asian = ("ISO-8859-1", "CP1252", "KOI8-R", "CP1251"), ("GBK", "BIG5", "EUC-KR", "EUC-JP", "SHIFT_JIS")
    assert guess(data) in (None, *western, *asian)


def test_utf8_with_a_few_bad_bytes_and_halves_of_characters(tmp_path):
    file = tmp_path / "broken.txt"
    for content, words in (
        ((CHINESE * 3).encode() + b"\xe4\xb8", "all but a few bytes"),
        (b"tweet \xed\xa0\xbd end", "surrogates"),
        (b"BZh9\xff", "packed with bzip2"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=words):
            list(lines(file))
    file.write_text("SQLite is a database.")  # text may well begin like that
    assert list(lines(file)) == ["SQLite is a database."]


def standard_input(monkeypatch, content: bytes) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    return list(incoming(None, "text", ""))


def test_what_standard_input_cannot_be_is_said(monkeypatch):
    assert standard_input(monkeypatch, b"") == []
    with pytest.raises(DataError, match=r"standard input is not valid UTF-8 at byte offset 3, in line 1: .*ISO-8859-1"):
        standard_input(monkeypatch, b"caf\xe9 au lait\n")
    with pytest.raises(DataError, match=r"standard input looks like a binary file"):
        standard_input(monkeypatch, b"one\0two\n")
    with pytest.raises(DataError, match=r"standard input is not UTF-8 .*UTF-16"):
        standard_input(monkeypatch, "one two three".encode("utf-16"))


def test_lines_come_as_soon_as_they_are_there(monkeypatch):
    """Nothing waits for a block to be full while somebody types."""
    read, write = os.pipe()
    with open(read, encoding="utf-8") as typed, open(write, "wb", buffering=0) as keyboard:
        monkeypatch.setattr("sys.stdin", typed)
        found = incoming(None, "text", "")
        for line in ("a", "two", ""):
            keyboard.write(f"{line}\n".encode())
            assert next(found) == line


def test_no_standard_input_at_all(monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stdin", stream)
        with pytest.raises(ConfigError, match=r"no text given: standard input is closed"):
            incoming(None, "text", "file=...")
