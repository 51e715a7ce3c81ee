"""Which files a path means, for every source; and what is said of those that cannot be read."""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from command import lmctl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmctl.cli.main import main
from lmctl.core.errors import ConfigError, DataError
from lmctl.data.files import find, text_files
from lmctl.data.jsonl import JsonLines
from lmctl.data.parallel import Parallel
from lmctl.data.reading import lines
from lmctl.data.table import Table
from lmctl.data.text import TextFiles
from lmctl.data.text_encoding import guess
from lmctl.inference.input_lines import incoming, lines_of

ENGLISH = "The committee met again on Monday. It decided nothing, and everybody went home early. "
FRENCH = "Le café est fermé à midi. Déjà vu, n'est-ce pas ? Les élèves préfèrent l'été. "
CHINESE = "今天的天气很好，我们在公园里。他说这是不可能的，但是大家都来了。"
TAIWANESE = "今天的天氣很好，我們在公園裡。他說這是不可能的，但是大家都來了。"
JAPANESE = "今日はとても天気がいいので、公園に行きました。みんなが来るとは思わなかった。"
KOREAN = "오늘은 날씨가 아주 좋아서 우리는 공원에 갔다. 그는 이것이 불가능하다고 말했다. "
RUSSIAN = "Сегодня хорошая погода, и мы пошли в парк. Он сказал, что это невозможно. "


def put(folder: Path, **contents: str | bytes) -> Path:
    """Files by name; `__` stands for a slash, `_` before the suffix's letters for the dot."""
    for name, content in contents.items():
        file = folder / re.sub(r"_(?=[^_/]*$)", ".", name.replace("__", "/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def texts(source: TextFiles) -> set[str]:
    return {" ".join(document) for split in ("train", "valid") for document in source.documents(split)}


def table(path: str) -> set[str]:
    source = Table(path, label="label")
    return {row.texts[0] for split in ("train", "valid") for row in source.rows(split)}


def jsonl(path: str) -> set[str]:
    source = JsonLines(path, label="label")
    return {row.texts[0] for split in ("train", "valid") for row in source.rows(split)}


def text(path: str) -> set[str]:
    return texts(TextFiles(path, "one_document_per_line"))


KINDS = {
    "text": (text, ".txt", "{}\n".format),
    "table": (table, ".csv", 'text,label\n"{}",x\n'.format),
    "jsonl": (jsonl, ".jsonl", '{{"text": "{}", "label": "x"}}\n'.format),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_means_the_same_files_to_every_source(tmp_path, monkeypatch, kind):
    read, suffix, write = KINDS[kind]
    home = tmp_path / "home"
    for name in (
        "corpus/a" + suffix,
        "corpus/sub/B" + suffix.upper(),
        "corpus/odd name,[1]" + suffix,
        "away/far" + suffix,
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(write(name.rpartition("/")[2].split(".")[0]))
    corpus = home / "corpus"
    (corpus / f"packed{suffix}.GZ").write_bytes(gzip.compress(write("packed").encode()))
    for name in (f".hidden{suffix}", f"._a{suffix}", f".ipynb_checkpoints/a-checkpoint{suffix}", "other.xyz"):
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_bytes(b"\0\0 nobody reads this")
    (corpus / "loop").symlink_to(".")
    (corpus / "sub" / "up").symlink_to("..")
    (corpus / "elsewhere").symlink_to(home / "away")
    (corpus / f"again{suffix}").symlink_to(f"a{suffix}")
    os.mkfifo(corpus / f"pipe{suffix}")
    wanted = {"a", "B", "odd name,[1]", "far", "packed"}
    assert read(str(corpus)) == wanted
    monkeypatch.setenv("HOME", str(home))
    assert read("~/corpus") == wanted
    assert read(f"~/corpus/**/*{suffix}") == {"a", "odd name,[1]", "far"}


def test_parallel_text_and_lines_know_the_home_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(put(tmp_path, a_en="one\ntwo\n", a_de="eins\nzwei\n")))
    assert len(list(Parallel("~/a.en", "~/a.de").rows("train"))) == 1
    assert list(lines_of("~/a.en")) == ["one", "two"]


NAMES = st.sampled_from(["a", "b.txt", ".h", "c.TXT", "d[1]", "e.txt.gz"])
STEPS = st.sampled_from(["*", "**", "a", "?", "*.txt", ".*", "[ab]*", "d[[]1]", ".h"])


@settings(deadline=None)
@example(names={"a/a", "a/b.txt/.h"}, steps=["*", "*", ".h", "**"])
@given(
    st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=6), st.lists(STEPS, min_size=1, max_size=4)
)
def test_patterns_mean_what_they_mean_to_python(names, steps):
    with TemporaryDirectory() as folder:
        for name in sorted(names):
            try:
                Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, name).write_text("x")
            except OSError:  # a file is where this one wants a folder, or the other way round
                continue
        pattern = f"{folder}/{'/'.join(steps)}"
        before = list(steps)
        while before and before[-1] == "**":
            before.pop()
        named = len(before) < len(steps) and before and not glob.has_magic(before[-1])
        if named and any(Path(name).is_file() for name in glob.glob(f"{folder}/{'/'.join(before)}", recursive=True)):
            return  # for glob, a file that is named has itself in it
        wanted = sorted({Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()})
        try:
            found = find(pattern).files
        except DataError:
            found = []
        if glob.has_magic(pattern):
            assert found == wanted


def test_a_pattern_does_not_go_round_in_loops(tmp_path):
    put(tmp_path, a_txt="x", sub__b_txt="y")
    for name in ("one", "two", "sub/three"):  # glob would try every order of these, forty steps deep
        (tmp_path / name).symlink_to(tmp_path)
    assert text_files(f"{tmp_path}/**/*.txt") == [tmp_path / "a.txt", tmp_path / "sub" / "b.txt"]


def test_many_files(tmp_path):
    for number in range(2_000):
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    assert len(text_files(str(tmp_path))) == 2_000
    assert len(texts(TextFiles(str(tmp_path)))) == 2_000


MESSY: dict[str, str | bytes] = {
    "a_md": ENGLISH * 3,
    "b_txt": "Another text. It is short.",
    "c_txt": "A third one. It is short too.",
    "gbk_txt": CHINESE.encode("gbk"),
    "latin_txt": FRENCH.encode("latin-1"),
    "wide_txt": ENGLISH.encode("utf-16"),
    "empty_txt": "",
    "blank_txt": " \n\n",
    "page_html": "<p>x",
    "sub__page_HTML": "<p>y",
    "sheet_csv": "a,b",
    "paper_pdf": b"%PDF-1.4",
}


def messy(folder: Path) -> str:
    put(folder, **MESSY)
    (folder / "lost.txt").symlink_to("nowhere")
    return str(folder)


def test_all_files_that_cannot_be_read_are_named_together(tmp_path):
    with pytest.raises(DataError) as caught:
        texts(TextFiles(messy(tmp_path)))
    said = str(caught.value)
    assert said.startswith("4 of 9 files cannot be read:\n")
    for words in (
        "gbk.txt is not valid UTF-8 at byte offset 0, in line 1: it may be GBK",
        "latin.txt",
        "wide.txt",
        "lost.txt",
    ):
        assert words in said
    assert "iconv -f GBK -t UTF-8" in str(caught.value.hint)
    assert "data.on_bad_file=skip" in str(caught.value.hint)


def test_what_was_left_out_is_counted_by_kind(tmp_path):
    source = TextFiles(messy(tmp_path), on_bad_file="skip")
    assert texts(source) == {(ENGLISH * 3).strip(), str(MESSY["b_txt"]), str(MESSY["c_txt"])}
    read, left, first, *_ = source.describe().split("\n")
    assert "5 files, one_document_per_file (detected)" in read
    assert left.strip() == (
        "left out: .html 2, empty 2, not UTF-8 2, .csv 1, .pdf 1, link to nothing 1, not UTF-8 (UTF-16?) 1"
    )
    assert "gbk.txt" in first or "lost.txt" in first


def test_many_bad_files_are_not_many_lines(tmp_path):
    put(tmp_path, **{f"f{number}_txt": b"\xff\xfe\0" for number in range(40)})
    with pytest.raises(DataError, match="40 of 40 files cannot be read") as caught:
        texts(TextFiles(str(tmp_path)))
    assert str(caught.value).endswith("and 35 more")
    with pytest.raises(DataError, match="has no file that can be read"):
        texts(TextFiles(str(tmp_path), on_bad_file="skip"))


def test_the_fingerprint_is_of_what_is_read(tmp_path):
    bad = messy(tmp_path / "bad")
    good = put(tmp_path / "good", **{name: content for name, content in MESSY.items() if name[0] in "abcpse"})
    assert TextFiles(bad, on_bad_file="skip").fingerprint() == TextFiles(str(good)).fingerprint()


def test_a_bad_file_behind_many_good_ones_is_found_in_time(tmp_path):
    """Only the first files are looked at to see what they are like."""
    put(tmp_path, **{f"f{number}_txt": f"Number {number}. Good." for number in range(20)})
    put(tmp_path, z_txt=b"fine until here \xff", zz_txt=b"\xff")
    with pytest.raises(DataError, match=r"2 of 22 files.*\n.*z\.txt.*\n.*zz\.txt"):
        texts(TextFiles(str(tmp_path)))


def test_a_folder_without_text_says_what_it_has(tmp_path):
    put(tmp_path, a_html="x", b_html="x", c_csv="x", d__hidden_pdf="x")
    with pytest.raises(DataError, match=r"no text files .*; it has \.html 2, \.csv 1, \.pdf 1"):
        text_files(str(tmp_path))
    with pytest.raises(DataError, match=r"only folders match"):
        text_files(f"{tmp_path}/d*")


@pytest.mark.parametrize(
    ("content", "encoding", "name"),
    [
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
    with pytest.raises(DataError, match=f"it may be {name}") as caught:
        list(lines(file))
    command = str(caught.value.hint).partition(": ")[2]
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.decode() == content


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_guessed_and_the_command_works(tmp_path, encoding):
    file = tmp_path / "wide.txt"
    file.write_bytes(ENGLISH.encode(encoding))
    with pytest.raises(DataError) as caught:
        list(lines(file))
    done = subprocess.run(["bash", "-c", str(caught.value.hint).partition(": ")[2]], capture_output=True, check=True)
    assert done.stdout.decode().lstrip("\ufeff") == ENGLISH


@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_are_no_language(data):
    assert guess(data) in (
        None,
        "ISO-8859-1",
        "CP1252",
        "GBK",
        "BIG5",
        "EUC-KR",
        "EUC-JP",
        "SHIFT_JIS",
        "KOI8-R",
        "CP1251",
    )


def test_utf8_with_a_few_bad_bytes_and_halves_of_characters(tmp_path):
    broken = put(
        tmp_path, a_txt=(CHINESE * 3).encode() + b"\xe4\xb8", b_txt=b"tweet \xed\xa0\xbd end", c_txt=b"BZh9\xff"
    )
    for name, words in (("a", "all but a few bytes"), ("b", "surrogates"), ("c", "packed with bzip2")):
        with pytest.raises(DataError, match=words):
            list(lines(broken / f"{name}.txt"))
    # Text may well begin like that.
    assert list(lines(put(tmp_path, d_txt="SQLite is a database.") / "d.txt")) == ["SQLite is a database."]


def test_what_a_newcomer_should_notice(tmp_path):
    speeches = "".join(f"ANNA:\nLine {number}, spoken.\n\n" for number in range(40))
    stage = "".join(f"Exit number {number}.\n\n" for number in range(60)) + speeches
    said = TextFiles(str(put(tmp_path, play_txt=stage) / "play.txt")).describe()
    assert "60 of 100 documents are one line only" in said
    assert "layout" in said.split("\n")[1]
    said = TextFiles(str(put(tmp_path, page_html="<p>One.</p>\n\n<p>Two.</p>\n") / "page.html")).describe()
    assert "tags and scripts included" in said
    said = TextFiles(str(put(tmp_path / "big", a_txt="Short. One.", b_txt=ENGLISH * 50, c_txt="Tiny. Two.")))
    assert "one document is 99 % of the text" in said.describe()
    assert "\n" not in TextFiles(str(put(tmp_path / "ok", a_txt=ENGLISH, b_txt=ENGLISH[::-1] + "A b. C d."))).describe()


def standard_input(monkeypatch, content: bytes) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    return list(incoming(None, "text", ""))


def test_standard_input_is_read_as_files_are(monkeypatch):
    assert standard_input(monkeypatch, b"\xef\xbb\xbfone\r\ntwo\rmore\n\nlast") == ["one", "two\rmore", "", "last"]
    assert standard_input(monkeypatch, gzip.compress(b"packed\n")) == ["packed"]
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


def test_a_pipe_can_be_read_once(tmp_path):
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write('one\\ntwo\\n')"]):
        assert list(lines_of(str(pipe))) == ["one", "two"]
    for source in (TextFiles(str(pipe)), Table(str(pipe)), Parallel(path=str(pipe))):
        with pytest.raises(DataError, match="is a pipe, which can be read only once"):
            source.fingerprint()


def test_the_command_line_says_so_in_a_line(tmp_path):
    done = lmctl("generate", "model_path=nowhere", "prompt=caf\udce9", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not UTF-8 text" in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("eval model_path=runs/mien", "runs/mine"),
        ("predict model_path=runs/mine/modle", "runs/mine/model"),
        ("train init_from=runs/mien", "runs/mine"),
        ("train --from runs/mine/confg.yaml", "runs/mine/config.yaml"),
    ],
)
def test_a_model_that_is_not_there_may_have_a_name_much_like_it(line, meant, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("seed: 1\n")
    assert main(line.split()) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err
