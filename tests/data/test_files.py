"""Which files a path, folder or pattern means, for every source, and which of them cannot be read."""

from __future__ import annotations

import glob
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmctl.core.errors import DataError
from lmctl.data.files import find, text_files
from lmctl.data.jsonl import JsonLines
from lmctl.data.parallel import Parallel
from lmctl.data.table import Table
from lmctl.data.text import TextFiles
from lmctl.inference.input_lines import lines_of

ENGLISH = "The committee met again on Monday. It decided nothing, and everybody went home early. "
FRENCH = "Le café est fermé à midi. Déjà vu, n'est-ce pas ? Les élèves préfèrent l'été. "
CHINESE = "今天的天气很好，我们在公园里。他说这是不可能的，但是大家都来了。"


def put(folder: Path, **contents: str | bytes) -> Path:
    """Files by name; `__` stands for a slash, `_` before the suffix's letters for the dot."""
    for name, content in contents.items():
        file = folder / re.sub(r"_(?=[^_/]*$)", ".", name.replace("__", "/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def texts(source: TextFiles) -> set[str]:
    return {" ".join(document) for split in ("train", "valid") for document in source.documents(split)}


def first_texts(source: Table | JsonLines) -> set[str]:
    return {row.texts[0] for split in ("train", "valid") for row in source.rows(split)}


KINDS = {
    "text": (lambda path: texts(TextFiles(path, "one_document_per_line")), ".txt", "{}\n".format),
    "table": (lambda path: first_texts(Table(path, label="label")), ".csv", 'text,label\n"{}",x\n'.format),
    "jsonl": (
        lambda path: first_texts(JsonLines(path, label="label")),
        ".jsonl",
        '{{"text": "{}", "label": "x"}}\n'.format,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_means_the_same_files_to_every_source(tmp_path, monkeypatch, kind):
    read, suffix, write = KINDS[kind]
    home = tmp_path / "home"
    odd = f"corpus/odd name,[1]{suffix}"
    for name in (f"corpus/a{suffix}", f"corpus/sub/B{suffix.upper()}", odd, f"away/far{suffix}"):
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
    assert said.startswith("3 of 8 files cannot be read:\n")
    gbk = "gbk.txt is not valid UTF-8 at byte offset 0, in line 1: it may be GBK"
    assert all(words in said for words in (gbk, "latin.txt", "wide.txt"))
    assert "iconv -f GBK -t UTF-8" in str(caught.value.hint)
    assert "data.on_bad_file=skip" in str(caught.value.hint)


def test_what_was_left_out_is_counted_by_kind(tmp_path):
    source = TextFiles(messy(tmp_path), on_bad_file="skip")
    assert texts(source) == {(ENGLISH * 3).strip(), str(MESSY["b_txt"]), str(MESSY["c_txt"])}
    read, left, first, *_ = source.describe().split("\n")
    assert "5 files, one_document_per_file (detected)" in read
    counts = ".html 2, empty 2, not UTF-8 2, .csv 1, .pdf 1, link to nothing 1, not UTF-8 (UTF-16?) 1"
    assert left.strip() == f"left out: {counts}"
    assert "gbk.txt" in first


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


def test_a_pipe_can_be_read_once(tmp_path):
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write('one\\ntwo\\n')"]):
        assert list(lines_of(str(pipe))) == ["one", "two"]
    for source in (TextFiles(str(pipe)), Table(str(pipe)), Parallel(path=str(pipe))):
        with pytest.raises(DataError, match="is a pipe, which can be read only once"):
            source.fingerprint()
