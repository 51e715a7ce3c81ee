"""The content-addressed cache: hits, misses, races between processes, and what killed builds leave."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lmctl.core import cache
from lmctl.core.cache import default_root, key_of
from lmctl.core.errors import DataError, DiskError


def cached(root, kind, identity, make):
    """The folder of an entry, and whether it was a hit."""
    return cache.cached(root, kind, identity, make, Path, print)


def write(text):
    return lambda folder: (folder / "text").write_text(text) and None


def never(folder):
    raise AssertionError("built although it is there")


def test_made_once_and_found_again(tmp_path):
    entry, hit = cached(tmp_path, "store", {"a": 1, "b": [2]}, write("x"))
    assert not hit
    again, hit = cached(tmp_path, "store", {"b": [2], "a": 1}, never)
    assert hit
    assert again == entry
    assert (again / "text").read_text() == "x"


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": 1, "b": None}, {"A": 1}, {}])
def test_every_difference_is_a_miss(tmp_path, other):
    cached(tmp_path, "store", {"a": 1}, write("x"))
    assert not cached(tmp_path, "store", other, write("y"))[1]
    assert not cached(tmp_path, "tokenizer", {"a": 1}, write("y"))[1]


def test_what_is_not_json_has_no_key():
    with pytest.raises(TypeError):
        key_of({"path": Path("x")})
    with pytest.raises(ValueError, match="JSON"):
        key_of({"x": float("nan")})


def test_a_failed_build_leaves_no_entry(tmp_path):
    def fail(folder):
        (folder / "half").write_text("half")
        raise DataError("bad row")

    with pytest.raises(DataError, match="bad row"):
        cached(tmp_path, "store", {"a": 1}, fail)
    entry, hit = cached(tmp_path, "store", {"a": 1}, write("x"))
    assert not hit
    assert sorted(path.name for path in entry.iterdir()) == ["contents.json", "identity.json", "text"]


def _build(root: Path, ready: Any, results: Any, seconds: float) -> None:
    def make(folder: Path) -> None:
        (folder / "builder").write_text(str(os.getpid()))
        ready.set()
        time.sleep(seconds)

    entry, hit = cached(root, "store", {"a": 1}, make)
    results.put((hit, (entry / "builder").read_text()))


def _builders(root: Path, count: int, seconds: float) -> tuple[list[Any], Any, Any]:
    """Processes that build the same entry, each within so many seconds; when one has begun, and what they find."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Event(), context.Queue()
    processes = [context.Process(target=_build, args=(root, ready, results, seconds)) for _ in range(count)]
    for process in processes:
        process.start()
    return processes, ready, results


def test_two_processes_do_the_work_once(tmp_path):
    processes, _, results = _builders(tmp_path, 2, 0.5)
    (hit_a, builder_a), (hit_b, builder_b) = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert sorted([hit_a, hit_b]) == [False, True]
    assert builder_a == builder_b


def test_a_killed_build_is_no_hit_and_is_cleared_away(tmp_path):
    [process], ready, _ = _builders(tmp_path, 1, 600)
    assert ready.wait(60)
    # While it lives, another entry's build must not sweep its folder away.
    cached(tmp_path, "store", {"b": 1}, write("x"))
    assert len(list((tmp_path / "store").glob("*/builder"))) == 1
    process.kill()
    process.join()
    cached(tmp_path, "store", {"c": 1}, write("x"))
    assert not list((tmp_path / "store").glob("*/builder"))
    entry, hit = cached(tmp_path, "store", {"a": 1}, write("x"))
    assert not hit
    assert not (entry / "builder").exists()


def test_a_cache_that_cannot_be_written_names_the_key_that_moves_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError) as caught:
        cached(tmp_path / "file", "store", {}, never)
    assert "cache_dir=" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("error", "of_cache"),
    [
        (OSError("Couldn't deserialize thrift"), False),
        (FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/text.txt"), False),
        (PermissionError(errno.EACCES, "Permission denied", "/elsewhere/text.txt"), False),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (PermissionError(errno.EACCES, "Permission denied", "CACHE/store/x/tokens.bin"), True),
    ],
)
def test_an_error_of_a_reader_is_none_of_the_cache(tmp_path, error, of_cache):
    if error.filename:
        error.filename = error.filename.replace("CACHE", str(tmp_path))

    def fail(folder):
        raise error

    with pytest.raises(DiskError if of_cache else type(error)) as caught:
        cached(tmp_path, "store", {}, fail)
    assert (caught.value is error) != of_cache
    assert not list((tmp_path / "store").glob("*.building"))


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LMCTL_CACHE", raising=False)
    assert default_root() == tmp_path / ".cache" / "lmctl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "lmctl"
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "own"))
    assert default_root() == tmp_path / "own"
