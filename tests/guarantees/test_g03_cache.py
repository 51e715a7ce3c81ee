"""G3 for the cache: a damaged entry is noticed when it is opened, set aside and made anew; never a wrong number."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cached_text import figures, flip, text_mix
from small import documents, store, vocabulary

import lmctl.train.prepare
from lmctl.core import cache_check
from lmctl.core.batch import Batch
from lmctl.core.cache import cached, found, key_of
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, DataError, DiskError
from lmctl.data.hub import Hub
from lmctl.distill.logit_cache import KIND, Masking, build, find, identity
from lmctl.mix.mix import Mix
from lmctl.objective.base import Material
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.tokenizer.char import Char
from lmctl.train.prepare import prepare


def replaced(path: Path, by: Callable[[Path], object]) -> None:
    path.unlink()
    by(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "another bit": lambda path: flip(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a pickle": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + b"\x80\x04\x95."),
    "removed": os.unlink,
    "a link": lambda path: replaced(path, lambda link: link.symlink_to("/etc/passwd")),
    "a pipe": lambda path: replaced(path, os.mkfifo),
    "a folder": lambda path: replaced(path, Path.mkdir),
    "a socket": lambda path: replaced(path, lambda at: socket.socket(socket.AF_UNIX).bind(os.path.relpath(at))),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["deep/file", "identity.json", "contents.json"])
@pytest.mark.parametrize("kept_stamp", [True, False])
def test_g03_an_entry_that_is_not_what_was_built_is_built_anew(tmp_path, monkeypatch, damage, file, kept_stamp):
    monkeypatch.chdir(tmp_path)  # sockets have short names
    said: list[str] = []

    def make(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep/file").write_bytes(b"content")

    def text(folder: Path) -> bytes:
        return (folder / "deep/file").read_bytes()

    assert cached(tmp_path, "kind", {}, make, text, said.append) == (b"content", False)
    assert cached(tmp_path, "kind", {}, make, text, said.append) == (b"content", True)
    [entry] = [path for path in (tmp_path / "kind").iterdir() if path.is_dir()]
    DAMAGES[damage](entry / file)
    if not kept_stamp:
        (tmp_path / "kind" / f"{entry.name}.checked").unlink()
    assert found(tmp_path, "kind", {}, text) is None
    assert said == []
    assert cached(tmp_path, "kind", {}, make, text, said.append) == (b"content", False)
    [line] = said
    assert line.startswith("cache: an entry is damaged (")
    assert f"kind/broken-{entry.name}" in line
    assert (tmp_path / "kind" / f"broken-{entry.name}").is_dir()
    assert cached(tmp_path, "kind", {}, make, text, said.append) == (b"content", True)
    assert len(said) == 1


def test_g03_files_that_belong_to_nobody_are_noticed_and_every_broken_entry_is_kept(tmp_path):
    for number in range(3):
        folder, _ = cached(tmp_path, "kind", {}, lambda folder: (folder / "a").touch(), Path, lambda line: None)
        (folder / ".nfs01").touch()
        assert cached(tmp_path, "kind", {}, lambda folder: None, Path, print) == (folder, True)
        (folder / "added_tokens.json").write_text(str(number))
    cached(tmp_path, "kind", {}, lambda folder: None, Path, lambda line: None)
    kept = [(path / "added_tokens.json").read_text() for path in sorted((tmp_path / "kind").glob("broken-*"))]
    assert kept == ["0", "1", "2"]


def test_g03_checksums_are_computed_once_for_each_boot_and_for_each_change(tmp_path, monkeypatch):
    computed = []
    checksum = cache_check._checksum
    monkeypatch.setattr(cache_check, "_checksum", lambda path: computed.append(path.name) or checksum(path))

    def opened() -> list[str]:
        computed.clear()
        assert cached(tmp_path, "kind", {}, lambda folder: (folder / "a").touch(), Path, print)[0]
        return list(computed)

    assert opened() == []
    assert opened() == []
    [entry] = [path for path in (tmp_path / "kind").iterdir() if path.is_dir()]
    (entry / "a").touch()
    assert opened() == ["a", "identity.json"]
    assert opened() == []
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(cache_check, "_BOOT", boot)
    assert opened() == ["a", "identity.json"]
    assert opened() == []
    boot.unlink()  # a system without ids: every time
    assert opened() == opened() == ["a", "identity.json"]


def test_g03_who_has_the_entry_open_goes_on(tmp_path):
    """Renamed while it is mapped; and what a cleaner deletes stays mapped."""

    def make(folder: Path) -> None:
        np.save(folder / "a.npy", np.arange(5))

    def read(folder: Path) -> np.ndarray:
        return np.load(folder / "a.npy", mmap_mode="r")

    first, _ = cached(tmp_path, "kind", {}, make, read, print)
    [entry] = [path for path in (tmp_path / "kind").iterdir() if path.is_dir()]
    (entry / "identity.json").unlink()
    second, hit = cached(tmp_path, "kind", {}, make, read, lambda line: None)
    shutil.rmtree(tmp_path / "kind" / f"broken-{entry.name}")
    assert not hit
    assert first.tolist() == second.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["lock", "building", "checked"])
def test_g03_nothing_is_written_through_a_link_that_somebody_left_in_the_cache(tmp_path, name):
    victim = tmp_path / "elsewhere/victim"
    victim.parent.mkdir()
    victim.write_text("precious")
    (tmp_path / "kind").mkdir()
    link = tmp_path / "kind" / f"{key_of({})}.{name}"
    link.symlink_to(victim.parent if name == "building" else victim)
    with nullcontext() if name == "checked" else pytest.raises(DiskError, match="cannot use the cache"):
        cached(tmp_path, "kind", {}, lambda folder: None, Path, print)
    assert [path.read_text() for path in victim.parent.iterdir()] == ["precious"]


def test_g03_a_damaged_entry_where_nothing_can_be_written_is_refused_in_words(tmp_path, monkeypatch):
    cached(tmp_path, "kind", {}, lambda folder: (folder / "a").write_text("a") and None, Path, print)
    [entry] = [path for path in (tmp_path / "kind").iterdir() if path.is_dir()]
    flip(entry / "a")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(entry))

    monkeypatch.setattr("lmctl.core.cache.set_aside", refused)
    with pytest.raises(DiskError, match=r"cannot use the cache .*: Permission denied"):
        cached(tmp_path, "kind", {}, lambda folder: None, Path, print)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Mix, Any]:
    """A cache that nobody damaged, and what comes out of it."""
    folder = tmp_path_factory.mktemp("whole")
    mix = text_mix(folder / "data")
    return folder / "cache", mix, figures(prepare(Char(), mix, str(folder / "cache"), lambda line: None))


def entry_files(root: Path) -> list[Path]:
    """Files of all entries, one of each name in a kind of entry."""
    files = {(path.parent.parent.name, path.name): path for path in sorted(root.glob("*/*/*"))}
    return list(files.values())


def test_g03_no_damaged_file_of_tokens_or_tokenizer_changes_a_number(whole, tmp_path, monkeypatch):
    root, mix, right = whole
    monkeypatch.chdir(tmp_path)
    files = entry_files(root)
    assert {path.name for path in files} > {"tokens.bin", "documents.npy", "labels.npy", "tokenizer.json", "meta.json"}
    for number, file in enumerate(files):
        copy, said = tmp_path / str(number), []
        shutil.copytree(root, copy)
        list(DAMAGES.values())[number % len(DAMAGES)](copy / file.relative_to(root))
        assert figures(prepare(Char(), mix, str(copy), said.append)) == right
        assert ["is damaged" in line for line in said].count(True) == 1, file


def test_g03_a_hostile_store_is_not_read_beyond_its_ends(whole, tmp_path):
    """Files that fit their checksums and not each other."""
    root, mix, right = whole

    def change(name: str, value: Any) -> Callable[[Path], None]:
        return lambda folder: np.save(folder / name, value)

    def meta(**values: Any) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            kept = json.loads((folder / "meta.json").read_text())
            (folder / "meta.json").write_text(json.dumps(kept | values))

        return write

    changes = [
        change("documents.npy", np.array([0, 1 << 40])),
        change("sentences.npy", np.array([-5, 3])),
        change("documents.npy", np.zeros((3, 3), dtype=np.int64)),
        change("histogram.npy", np.array(["x"], dtype=object)),
        change("labels.npy", np.full(39, 1 << 40)),
        meta(tokens=1 << 60), meta(tokens=-1), meta(tokens="many"), meta(dtype="O"), meta(label_names=[[1]]),
    ]  # fmt: skip
    for number, spoil in enumerate(changes):
        copy, said = tmp_path / str(number), []
        shutil.copytree(root, copy)
        for folder in {path.parent for path in copy.glob("tokens/*/labels.npy")}:
            spoil(folder)
            cache_check.seal(folder)
            cache_check.stamp(folder)
        assert figures(prepare(Char(), mix, str(copy), said.append)) == right
        assert sum("is damaged" in line for line in said) == 2, number


def teacher(batch: Batch) -> dict[str, torch.Tensor]:
    """Logits that depend on the targets."""
    outputs = {"mlm": torch.arange(85), "nsp": torch.arange(2)}
    return {term: torch.sin(outputs[term] * (target.labels[:, None] + 1.3)) for term, target in batch.targets.items()}


@pytest.mark.parametrize("damage", ["a bit", "cut", "removed", "a pickle", "a link"])
def test_g03_damaged_answers_of_a_teacher_are_asked_for_again(tmp_path, damage):
    material = Material("corpus", store(documents(12)), vocabulary(), "encoder", 32)
    some, key = MaskedLMAndNextSentence().examples(material), identity(0, 8, seed=1)

    def kept(answer: Any = teacher) -> tuple[Masking, bool]:
        return build(tmp_path, key, some, CounterRng(1, "corpus/rows"), 5, answer, say=said.append)

    def values(masking: Masking) -> Any:
        arrays = [masking.places, masking.checks, *masking.columns.values()]
        return [{name: array.tolist() for name, array in some.items()} for some in arrays]

    said: list[str] = []
    right = values(kept()[0])
    [entry] = [path for path in (tmp_path / KIND).iterdir() if path.is_dir()]
    for file in sorted(path.name for path in entry.iterdir()):
        DAMAGES[damage](entry / file)
        with pytest.raises(ConfigError, match=r"the answers in .* are damaged|no answers of any teacher"):
            find(tmp_path, key)
        masking, hit = kept()
        assert not hit
        assert values(masking) == right
        assert "is damaged" in said.pop()
        assert values(find(tmp_path, key)) == right


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_g03_a_disk_that_is_full_anywhere_is_said_and_leaves_no_entry(whole, tmp_path):
    root, mix, right = whole
    sizes = sorted({path.stat().st_size for path in root.glob("*/*/*")})
    for size in {size - 1 for size in sizes if size > 300}:  # each file is the first that does not fit, once
        with (
            files_of_at_most(size),
            pytest.raises(DiskError, match=r"(cannot use the cache|no room for) .*: File too large"),
        ):
            prepare(Char(), mix, str(tmp_path / "cache"), lambda line: None)
    assert not list((tmp_path / "cache").glob("*/*.building"))
    assert figures(prepare(Char(), mix, str(tmp_path / "cache"), lambda line: None)) == right


@pytest.mark.parametrize("moment", ["learnt", "tokenised"])
@pytest.mark.parametrize("kind", ["text", "rows"])
def test_g03_a_text_that_changes_while_it_is_read_is_never_cached(whole, tmp_path, monkeypatch, moment, kind):
    """Neither when it has the same size and time, nor when the first version is back at the next run."""
    _, _, right = whole
    mix = text_mix(tmp_path / "data")
    file = tmp_path / "data" / ("text.txt" if kind == "text" else "rows.csv")
    original = file.read_bytes()
    where, name = (Char, "obtain") if moment == "learnt" else (lmctl.train.prepare, "write_store")
    work = getattr(where, name)

    def changed(*given: Any) -> Any:
        flip(file, original.index(b"a r"))
        return work(*given)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, changed)
        with pytest.raises(DataError, match=f"{file.name} changed while it was read"):
            prepare(Char(), mix, str(tmp_path / "cache"), lambda line: None)
    file.write_bytes(original)
    assert figures(prepare(Char(), text_mix(tmp_path / "data"), str(tmp_path / "cache"), lambda line: None)) == right


def test_g03_a_stream_that_changes_between_its_blocks_is_not_gone_on_with(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"text": "row {number}"}}\n' for number in range(20)))
    hub = Hub(str(file), streaming=True, buffer=5)
    first = hub.block(0, None, CounterRng(1, "x"))
    second = hub.block(0, first.after, CounterRng(1, "x"))
    assert second.rows
    flip(file, -3)
    with pytest.raises(DataError, match=r"rows\.jsonl changed while it was read"):
        hub.block(0, second.after, CounterRng(1, "x"))
