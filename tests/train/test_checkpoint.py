"""Checkpoints: written whole or not at all, checksums, retention, and full disks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError

from lmctl.core.errors import ConfigError, DiskError, LmctlError
from lmctl.core.files import digest, writing
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import Contents, Damaged, check_named, read, verify


def weights(value: float) -> dict[str, torch.Tensor]:
    tensor = torch.full((3, 4), value)
    return {"a": tensor, "tied": tensor, "b": torch.arange(5)}


def save(store: Checkpoints, step: int) -> Path:
    return store.save(step, weights(step), {"progress": {"step": step}}, {"random": [step]})


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def newest(store: Checkpoints) -> Contents:
    """The newest checkpoint, of which there is nothing to say."""

    def no_warning(message: str) -> None:
        raise AssertionError(message)

    return read(next(store.sound(no_warning)))


def test_round_trip(tmp_path):
    store = Checkpoints(tmp_path / "c", keep=2)
    path = save(store, 7)
    assert path.name == "step-00000007"
    found = newest(store)
    assert found.path == path
    assert torch.equal(found.weights["a"], weights(7)["a"])
    assert "tied" not in found.weights
    assert found.state == {"progress": {"step": 7}}
    assert found.of_rank(0) == {"random": [7]}
    assert found.of_rank(1) is None
    assert store.named("latest") == "step-00000007"
    assert {entry["size"] for entry in json.loads((path / "manifest.json").read_text())["files"].values()}


def test_what_is_written_in_the_background_is_what_was_there_at_the_time(tmp_path):
    store, moments = Checkpoints(tmp_path, keep=2, background=True), weights(7)
    store.save(7, moments, {"progress": {"step": 7}, "moment": moments["a"]}, {"random": moments["a"]})
    moments["a"].zero_()
    store.wait()
    found = newest(store)
    for tensor in (found.weights["a"], found.state["moment"], found.of_rank(0)["random"]):
        assert torch.equal(tensor, weights(7)["a"])


def test_the_newest_and_the_best_are_kept(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        store.save(step, weights(step), {"progress": {"step": step}}, {}, best=2)
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    assert store.named("best") == "step-00000002"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "one flipped bit in the weights": lambda p: flip(p / "model.safetensors"),
    "one flipped bit in the state": lambda p: flip(p / "state.pt"),
    "a file cut short": lambda p: (p / "state.pt").write_bytes((p / "state.pt").read_bytes()[:-1]),
    "a file missing": lambda p: (p / "rank-0.pt").unlink(),
    "no manifest": lambda p: (p / "manifest.json").unlink(),
    "an empty manifest": lambda p: (p / "manifest.json").write_text(""),
    "a manifest of something else": lambda p: (p / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_noticed_and_the_one_before_is_used(tmp_path, damage):
    store = Checkpoints(tmp_path, keep=3)
    save(store, 1)
    damage(save(store, 2))
    said: list[str] = []
    assert next(store.sound(said.append)).name == "step-00000001"
    assert len(said) == 1
    assert said[0].startswith("checkpoint step-00000002 is damaged (")
    assert names(tmp_path) == ["broken-step-00000002", "step-00000001"]  # set aside, not deleted
    with pytest.raises(ConfigError):
        check_named(tmp_path / "broken-step-00000002")


def test_nothing_is_unpickled(tmp_path):
    """A state file with code in it, under a manifest that is right, is refused."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    store = Checkpoints(tmp_path / "c", keep=2)
    path = store.save(1, weights(1), {"x": 1}, {})
    torch.save(Evil(), path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    state = path / "state.pt"
    manifest["files"]["state.pt"] = {"size": state.stat().st_size, "sha256": digest(state)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert verify(path) is None
    with pytest.raises(Damaged, match="more than tensors and numbers"):
        newest(store)
    assert not (tmp_path / "pwned").exists()


FULL = {
    "torch.save": ("torch.save", RuntimeError("[enforce fail] unexpected pos 64 vs 0")),
    "safetensors": ("lmctl.train.checkpoint_files.save_file", RuntimeError("I/O error: No space left on device")),
    "fsync": ("lmctl.train.checkpoint_files.sync_file", OSError(28, "No space left on device")),
    "manifest": ("lmctl.train.checkpoint.write_text", OSError(28, "No space left on device")),
    "rename": ("os.rename", OSError(28, "No space left on device")),
}


@pytest.mark.parametrize(("target", "error"), FULL.values(), ids=FULL.keys())
def test_a_full_disk_leaves_the_earlier_ones_good(tmp_path, monkeypatch, target, error):
    store = Checkpoints(tmp_path, keep=2)
    save(store, 1)
    save(store, 2)
    with monkeypatch.context() as patch:
        patch.setattr(target, Mock(side_effect=error))
        with pytest.raises(DiskError, match=r"cannot write .*step-00000003.*earlier checkpoints are intact"):
            save(store, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert newest(store).path.name == "step-00000002"
    save(store, 3)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


def test_a_save_that_was_killed_halfway_does_not_count(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    path = save(store, 1)
    shutil.copytree(path, tmp_path / ".partial-step-00000002")
    assert newest(store).path.name == "step-00000001"
    save(store, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_saving_a_step_again_replaces_it(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    save(store, 4)
    store.save(4, weights(40), {"progress": {"step": 4}}, {})
    assert torch.equal(newest(store).weights["a"], weights(40)["a"])


MISTAKES = {
    "a value that cannot be saved": lambda store: store.save(3, weights(3), {"x": lambda: 0}, {}),
    "one of this process's": lambda store: store.save(3, weights(3), {}, {"x": lambda: 0}),
    "no weights": lambda store: store.save(3, {"a": None}, {}, {}),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_not_called_a_full_disk(tmp_path, mistake):
    store = Checkpoints(tmp_path, keep=2)
    save(store, 1)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is
        mistake(store)
    assert not isinstance(caught.value, LmctlError)
    assert names(tmp_path) == ["step-00000001"]


DENIED = SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")
LIBRARIES = {
    "tokenizers": (Exception("No space left on device (os error 28)"), "free some space"),
    "safetensors": (DENIED, "permission"),
    "torch": (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "free some space"),
    "system": (OSError(28, "No space left on device"), "free some space"),
}


@pytest.mark.parametrize(("error", "advice"), LIBRARIES.values(), ids=LIBRARIES.keys())
def test_what_libraries_say_of_a_disk_is_understood(tmp_path, error, advice):
    with pytest.raises(DiskError, match=rf"cannot write {tmp_path}") as caught, writing(tmp_path):
        raise error
    assert advice in caught.value.hint


def test_a_mistake_while_writing_stays_what_it_is(tmp_path):
    with pytest.raises(AttributeError, match="data_ptr"), writing(tmp_path):
        raise AttributeError("'NoneType' object has no attribute 'data_ptr'")
