"""A data set of a stranger is text: it reads only its own files, runs and blocks nothing, fills no memory."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from command import environment

from lmctl.core.errors import ConfigError, DataError
from lmctl.data import document_layout, parquet, reading
from lmctl.data.base import Source
from lmctl.data.hub import Hub
from lmctl.data.jsonl import JsonLines
from lmctl.data.parallel import Parallel
from lmctl.data.table import Table
from lmctl.data.text import TextFiles
from lmctl.inference.input_lines import placed
from lmctl.inference.nbest import utterance
from lmctl.inference.new_rows import NewRows
from lmctl.inference.pairs import pair_of
from lmctl.train.class_labels import Labels, labelled

ROWS = "".join(json.dumps({"text": f"a text {n}", "label": n % 2}) + "\n" for n in range(6))
SECRET = ROWS.replace("text ", "secret ")

SOURCES: dict[str, Callable[[str], Source]] = {
    "text": TextFiles,
    "table": Table,
    "jsonl": JsonLines,
    "parallel": lambda path: Parallel(path=path),
    "hub": Hub,
}


@pytest.fixture
def no_network(monkeypatch):
    def reached(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", reached)
    monkeypatch.setattr(socket, "getaddrinfo", reached)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A data set, with somebody's secret beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set/sub").mkdir(parents=True)
    (tmp_path / "set/own.jsonl").write_text(ROWS)
    (tmp_path / "secret.jsonl").write_text(SECRET)
    return tmp_path / "set"


OUTSIDE = (
    "../secret.jsonl", "sub/../../secret.jsonl", "../*.jsonl", "{here}/secret.jsonl", "file://{here}/secret.jsonl",
    "local://{here}/secret.jsonl", "https://127.0.0.1:9/x.jsonl", "hf://datasets/owner/name/x.jsonl",
    "zip://x.jsonl::{here}/x.zip", "s3://bucket/x.jsonl", "memory://x.jsonl",
)  # fmt: skip
CARDS = {
    "one": "configs:\n- config_name: default\n  data_files: {place!r}\n",
    "several": "configs:\n- config_name: a\n  data_files: own.jsonl\n- config_name: b\n  data_files: [{place!r}]\n",
    "by split": "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [own.jsonl, {place!r}]\n",
    "folder": "configs:\n- config_name: default\n  data_dir: {place!r}\n",
    "shared": "x: &x {{data_files: {place!r}}}\nconfigs:\n- {{config_name: default, <<: *x}}\n",
}


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
@pytest.mark.usefixtures("no_network")
def test_a_card_names_nothing_outside_of_its_folder(folder, monkeypatch, place, card, file):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    text = CARDS[card].format(place=place.format(here=folder.parent))
    (folder / file).write_text(f"---\n{text}---\n" if file == "README.md" else text)
    for path, config in ((folder, None), (folder, "a"), (folder / "own.jsonl", None)):
        with pytest.raises(DataError, match="is not one of its files"):
            Hub(str(path), config=config).fingerprint()


@pytest.mark.usefixtures("no_network")
def test_links_that_the_user_made_are_followed(folder):
    (folder / "sub/linked.jsonl").symlink_to("../../secret.jsonl")
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: sub/*\n---\n")
    assert "secret" in str([row.texts for row in Hub(str(folder)).rows("train")])


@pytest.mark.parametrize("name", ["../set2/data.arrow", "{here}/set2/data.arrow"])
@pytest.mark.usefixtures("no_network")
def test_the_index_of_a_saved_dataset_names_nothing_outside(folder, name):
    import datasets

    saved, other = folder.parent / "set1", folder.parent / "set2"
    for place in (saved, other):
        datasets.Dataset.from_list([{"text": "a b"}] * 3).save_to_disk(str(place))
    [arrow] = other.glob("*.arrow")
    arrow.rename(other / "data.arrow")
    state = json.loads((saved / "state.json").read_text())
    state["_data_files"] = [{"filename": name.format(here=folder.parent)}]
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="is not one of its files"):
        Hub(str(saved)).fingerprint()


@pytest.mark.parametrize("file", ["set.py", "own.py", "dataset.py"])
def test_a_script_beside_data_is_not_run(folder, file):
    (folder / file).write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    for path in (folder, folder / "own.jsonl"):
        with suppress(ConfigError):  # "no code that comes with data is run"
            list(Hub(str(path)).rows("train"))
    assert not (folder / "ran").exists()


def odd(path: Path, kind: str) -> Path:
    """Something at `path` that is no plain file."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
        case _:
            path.symlink_to(
                {"zero": "/dev/zero", "null": "/dev/null", "kernel": "/proc/kmsg", "lost": "/nowhere"}[kind]
            )
    return path


ODD = ("pipe", "socket", "zero", "null", "kernel", "lost")


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_no_plain_file_is_refused_where_it_is_named(folder, kind, source):
    suffix = {"text": "txt", "table": "csv", "parallel": "txt"}.get(source, "jsonl")
    path = odd(folder / f"odd.{suffix}", kind)
    with pytest.raises(DataError, match=r"odd\.|does not exist") as caught:
        SOURCES[source](str(path)).fingerprint()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_plain_file_is_left_out_of_a_folder_and_counted(folder, kind):
    odd(folder / "odd.jsonl", kind)
    for path in (folder, folder / "*.jsonl", folder / "**/*"):
        source = JsonLines(str(path), label="label")
        assert len(list(source.rows("train"))) + len(list(source.rows("valid"))) == 6
        assert ("link to nothing 1" in source.describe()) == (kind == "lost")


def test_a_link_in_a_dataset_to_a_file_of_the_kernel_is_refused(folder):
    odd(folder / "odd.jsonl", "kernel")  # pipes and devices are left out by the library
    with pytest.raises(DataError, match=r"odd\.jsonl is a"):
        Hub(str(folder)).fingerprint()


@pytest.mark.parametrize("kind", ["pipe", "socket", "kernel"])
def test_a_card_that_is_no_plain_file_blocks_nothing(folder, kind):
    odd(folder / ".huggingface.yaml", kind)
    with pytest.raises(DataError, match=r"\.huggingface\.yaml is a"):
        Hub(str(folder)).fingerprint()


@pytest.mark.parametrize("kind", ["socket", "zero", "null", "kernel", "lost"])
def test_what_is_read_once_may_be_a_pipe_and_nothing_odder(folder, kind):
    path = str(odd(folder / "odd.txt", kind))
    for read in (lambda: list(placed(path)), lambda: list(NewRows(path))):
        with pytest.raises(DataError, match=r"odd\.txt"):
            read()


@pytest.mark.parametrize("packed", [lambda text: text, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("kind", ["auto", "table", "jsonl"])
def test_a_pipe_is_read_once(folder, kind, packed):
    content = {"auto": "a text\nanother\n", "table": "text\na text\nanother\n"}.get(kind, '{"text":"a text"}\n' * 2)
    os.mkfifo(folder / "fifo")
    writer = "import sys; open(sys.argv[1], 'wb').write(bytes.fromhex(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", writer, folder / "fifo", packed(content.encode()).hex()]):
        assert [len(row.texts) for row in NewRows(str(folder / "fifo"), kind)] == [1, 1]


HUGE = {
    "line.txt": b"word " * 1000,
    "document.txt": b"A line. And one.\n" * 1000,
    "headings.txt": b"= Title =\n\n" * 1000,
    "object.jsonl": b'{"text": "' + b"a b " * 1000,
    "cell.csv": b'text,label\n"' + b"one\n" * 1000,
    "cells.csv": b"text,label\na," + b'"one\n",' * 1000,
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_what_is_too_long_is_said_with_its_place(folder, monkeypatch, name, suffix):
    for module in ("reading", "dialect"):
        monkeypatch.setattr(f"lmctl.data.{module}.{'LONGEST' if module == 'dialect' else 'LONGEST_LINE'}", 2_000)
    monkeypatch.setattr(reading, "_BLOCK", 100)
    monkeypatch.setattr(document_layout, "MOST_OF_DOCUMENT", 4_000)
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(suffix, bytes)
    (folder / f"{name}{suffix}").write_bytes(pack(HUGE[name]))
    layout = {"layout": "one_document_per_file"} if name == "document.txt" else {}
    made = {".csv": Table, ".jsonl": JsonLines}.get(Path(name).suffix, TextFiles)
    with pytest.raises(DataError, match=rf"{name}{suffix}:\d+: a (line|document|row) ") as caught:
        list(made(str(folder / f"{name}{suffix}"), **layout).rows("train"))
    assert caught.value.hint


BOMBS = """
import resource, sys
from itertools import islice
from pathlib import Path
from lmctl.core.errors import DataError
from lmctl.data.jsonl import JsonLines
from lmctl.data.table import Table
from lmctl.data.text import TextFiles
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(folder.iterdir()):
    kinds = {"csv": Table, "parquet": Table, "jsonl": JsonLines, "txt": TextFiles}
    source = kinds[path.name.split(".")[1]](str(path))
    try:
        rows = source.read(str(path)) if path.suffix == ".parquet" else source.rows("train")
        print(path.name, sum(len(row.texts) for row in islice(rows, 6)))
    except DataError as error:
        print(path.name, error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_of_some_kilobytes_do_not_fill_the_memory(tmp_path):
    """Each would be 0.4 to 10 GB; all of them together take less than 1 GB."""
    bombs = tmp_path / "bombs"
    bombs.mkdir()

    def zst(name: str, head: bytes, unit: bytes) -> None:
        with open(bombs / name, "wb") as file, zstandard.ZstdCompressor().stream_writer(file) as out:
            out.write(head)
            for _ in range(400):
                out.write(unit * (1_000_000 // len(unit)))

    zst("a.txt.zst", b"", b"a b ")
    zst("b.jsonl.zst", b'{"text": [', b"{},")
    zst("c.csv.zst", b'text\n"', b"word " * 100 + b"\n")
    long = pa.array(["word " * 1_000_000])
    named_often = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), long)
    pq.write_table(pa.table({"text": named_often}), bombs / "d.parquet", compression="zstd")
    short = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["word " * 20_000]))
    nested = pa.ListArray.from_arrays(pa.array([0, 100_000], pa.int32()), short)
    pq.write_table(pa.table({"text": nested}), bombs / "e.parquet", compression="zstd")
    assert max(path.stat().st_size for path in bombs.iterdir()) < 100_000
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, bombs], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, kilobytes = done.stdout.splitlines()
    assert [line.split(" ", 1)[0][0] for line in said] == list("abcde")
    assert sum("a line of more than" in line for line in said) == 2
    assert "a row of more than" in said[2]
    assert said[3] == "d.parquet 6"
    assert "a row of 10,000,800,0" in said[4]
    assert int(kilobytes) < 1_000_000


def test_a_column_of_parquet_that_grows_without_measure_is_refused(folder, monkeypatch):
    monkeypatch.setattr(parquet, "_MOST_OF_GROUP", 1_000_000)
    table = pa.table({"text": ["word " * 1_000_000, "b c", "d e"]})
    pq.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"row group 0, column text: [0-9,]+ bytes that become 5,0"):
        list(Table(str(folder / "a.parquet")).rows("train"))


VALUES = (
    '"\\ud83d"', "1e309", "-1e400", "1e39", "3.5e38", "NaN", "Infinity", "123456789012345678901234567890", "9" * 5000,
    "[" * 100_000, '{"a":1}', "[1,[2]]", "[]", "[null]", "null", "true", '""', '"\\u0000"', '"nan"', '"--1"', '"²"',
    '["a","\\ud800"]', "[1e309]", "[" + "1e999," * 9 + "1]",
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_value_of_json_is_unforeseen(folder, value):
    """Read, or refused with its line; and nothing becomes infinite on the way."""
    path = folder / "values.jsonl"
    for kind in ("class", "classes", "number"):
        lines = [f'{{"text": "row {n}", "label": {one}}}\n' for n, one in enumerate([value, *"12121212"])]
        path.write_text("".join(lines))
        labels, source = Labels(kind, None), JsonLines(str(path), label="label")
        with refusing("values.jsonl:1: "):
            assert len([*labelled(source.rows("train"), labels, False, []), *source.rows("valid")]) == 9
            assert kind != "number" or abs(labels.arrays()[0]).max() < 3.4e38
    path.write_text(f'{{"text": {value}}}\n' + '{"text": "another"}\n' * 3)
    with refusing("values.jsonl:1: ", "one text only"):
        list(JsonLines(str(path)).rows("train"))
    for line in (
        f'{{"id": {value}, "ref": "a", "hyps": [{{"text": "a", "score": 1}}]}}',
        f'{{"id": 1, "ref": "a", "hyps": [{{"text": "a", "score": {value}}}]}}',
        f'{{"id": 1, "ref": {value}, "hyps": {value}}}',
    ):
        with refusing("x:1: "):
            utterance(line, "x:1")
    with refusing("x:1: "):
        pair_of(f'{{"good": {value}, "bad": "x"}}', "x:1")


@contextmanager
def refusing(*words: str) -> Iterator[None]:
    """What is inside succeeds, or is refused with one of these words."""
    try:
        yield
    except DataError as error:
        said = str(error)
    else:
        return
    assert any(word in said for word in words), said
