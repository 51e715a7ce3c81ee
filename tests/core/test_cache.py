"""The cache: hits, misses, races between processes and what killed builds leave."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from lmctl.core.cache import cached, default_root, key_of
from lmctl.core.errors import DataError, DiskError


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
    assert sorted(path.name for path in entry.iterdir()) == ["identity.json", "text"]


def _build_slowly(root, ready, results):
    def make(folder):
        (folder / "builder").write_text(str(os.getpid()))
        ready.set()
        time.sleep(0.5)

    entry, hit = cached(root, "store", {"a": 1}, make)
    results.put((hit, (entry / "builder").read_text()))


def _start(*arguments, target=_build_slowly):
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


def test_two_processes_do_the_work_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, results = context.Event(), context.Queue()
    processes = [_start(tmp_path, ready, results) for _ in range(2)]
    (hit_a, builder_a), (hit_b, builder_b) = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert sorted([hit_a, hit_b]) == [False, True]
    assert builder_a == builder_b


def _hang(root, ready, results):
    def make(folder):
        (folder / "half").write_text("half")
        ready.set()
        time.sleep(600)

    cached(root, "store", {"a": 1}, make)


def test_a_killed_build_is_no_hit_and_is_cleared_away(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = _start(tmp_path, ready, None, target=_hang)
    assert ready.wait(60)
    # While it lives, another entry's build must not sweep its folder away.
    cached(tmp_path, "store", {"b": 1}, write("x"))
    assert len(list((tmp_path / "store").glob("*/half"))) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cached(tmp_path, "store", {"c": 1}, write("x"))
    assert not list((tmp_path / "store").glob("*/half"))
    entry, hit = cached(tmp_path, "store", {"a": 1}, write("x"))
    assert not hit
    assert not (entry / "half").exists()


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
