"""G3: a damaged checkpoint is noticed, the newest good one is used, and the bad one is set aside, never deleted. That
holds for a stranger's checkpoint as well, whose checksums are right and whose contents are not."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged import NEWEST, OLDER, copied, make_run, own_plan, resumed, sign, with_state
from safetensors.torch import load_file, save_file
from small import prepared
from walked import alone

from lmctl.core.errors import ConfigError
from lmctl.train.trainer import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Loads one checkpoint after the other."""
    return Trainer(own_plan(), prepared(), alone())


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def act(checkpoint: Path) -> None:
        file = checkpoint / "manifest.json"
        found = json.loads(file.read_text())
        returned = change(found)
        file.write_text(json.dumps(found if returned is None else returned))

    return act


def raw_manifest(text: bytes) -> Callable[[Path], Any]:
    return lambda checkpoint: (checkpoint / "manifest.json").write_bytes(text)


def without(*names: str) -> Callable[[Any], None]:
    """Remove what these names lead to."""

    def act(tree: Any) -> None:
        for name in names[:-1]:
            tree = tree[name]
        del tree[names[-1]]

    return act


def folder(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").mkdir()


def fifo(name: str) -> Callable[[Path], None]:
    def act(checkpoint: Path) -> None:
        (checkpoint / name).unlink()
        os.mkfifo(checkpoint / name)

    return act


def entry(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda found: found["files"].update({name: value})


MANIFESTS = {
    "it names no files": manifest(lambda m: m | {"files": {}}),
    "it does not name the weights": manifest(without("files", "model.safetensors")),
    "it does not name the generators": manifest(without("files", "rank-0.pt")),
    "it has a gap in the processes": manifest(lambda m: m["files"].update({"rank-2.pt": m["files"]["rank-0.pt"]})),
    "an entry without a size": manifest(entry("state.pt", {"sha256": "0" * 64})),
    "an entry without a checksum": manifest(entry("state.pt", {"size": 3})),
    "an entry that is a list": manifest(entry("state.pt", [3, "0" * 64])),
    "a checksum that is none": manifest(entry("state.pt", {"size": 3, "sha256": "x" * 64})),
    "a name above": manifest(entry("../../config.yaml", {"size": 3, "sha256": "0" * 64})),
    "an absolute name": manifest(entry("/etc/passwd", {"size": 3, "sha256": "0" * 64})),
    "a name that no checkpoint has": manifest(entry("notes.txt", {"size": 3, "sha256": "0" * 64})),
    "files as a list": manifest(lambda m: m | {"files": list(m["files"])}),
    "another format": manifest(lambda m: m | {"format": 99}),
    "another step": manifest(lambda m: m | {"step": 9}),
    "a step that is text": manifest(lambda m: m | {"step": "4"}),
    "deep nesting": raw_manifest(b"[" * 100_000),
    "many megabytes": raw_manifest(b" " * (1 << 21) + b"{}"),
    "not UTF-8": raw_manifest(b"\xff\xfe{}"),
    "a FIFO as the manifest": fifo("manifest.json"),
    "a FIFO as the state": fifo("state.pt"),
    "a folder as the weights": folder,
}


def progress(**changes: Any) -> Callable[[Path], None]:
    return with_state(lambda state: state["progress"].update(changes))


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def act(checkpoint: Path) -> None:
        tensors = load_file(checkpoint / "model.safetensors")
        change(tensors)
        save_file(tensors, checkpoint / "model.safetensors")
        sign(checkpoint)

    return act


def contents(name: str, data: bytes) -> Callable[[Path], None]:
    def act(checkpoint: Path) -> None:
        (checkpoint / name).write_bytes(data)
        sign(checkpoint)

    return act


def compressed(checkpoint: Path) -> None:
    """A small file of a great many bytes, which torch would read."""
    with_state(lambda state: state.update(more=torch.zeros(1 << 20)))(checkpoint)
    file = checkpoint / "state.pt"
    with zipfile.ZipFile(file) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert file.stat().st_size < 1 << 20
    sign(checkpoint)


def allocating(checkpoint: Path) -> None:
    """A pickle that torch would read: it makes as many bytes as it says."""
    with zipfile.ZipFile(checkpoint / "state.pt") as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(checkpoint / "state.pt", "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            bomb = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (1 << 20).to_bytes(5, "little") + b"\x85R."
            archive.writestr(name, bomb if name.endswith(".pkl") else data)
    sign(checkpoint)


def nested(state: dict[str, Any]) -> dict[str, Any]:
    node: list[Any] = []
    for _ in range(30):  # two to the power of 30 leaves, in 30 lists
        node = [node, node]
    state["progress"]["valid"] = {"loss": node}
    return state


def endless(state: dict[str, Any]) -> dict[str, Any]:
    node: list[Any] = []
    node.append(node)
    state["progress"]["valid"] = {"loss": node}
    return state


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def pickled(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def first_tensor(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name, tensor in sorted(tensors.items()) if tensor.dim() == 2)


CONTENTS = {
    "the state is a list": with_state(lambda state: [state]),
    "the state has no progress": with_state(without("progress")),
    "the progress is none": with_state(lambda state: state.update(progress=None)),
    "the state has no identity": with_state(without("identity")),
    "the identity is text": with_state(lambda state: state.update(identity="x")),
    "the identity's config is nested": with_state(lambda s: s["identity"].update(config="[" * 100_000)),
    "the state has no optimiser": with_state(without("optimizer")),
    "the optimiser is none": with_state(lambda state: state.update(optimizer=None)),
    "the optimiser has other groups": with_state(lambda state: state["optimizer"].update(param_groups=[])),
    "a moment of another size": with_state(lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(3))),
    "a moment that is text": with_state(lambda s: s["optimizer"]["state"][0].update(exp_avg="x")),
    "an unknown counter": progress(mood=3),
    "a step of 1e30": progress(step=10**30),
    "a step that is a float": progress(step=4.0),
    "a negative step": progress(step=-1),
    "another step": progress(step=3),
    "a size below zero": progress(metrics_bytes=-1),
    "seconds without end": progress(seconds=float("inf")),
    "tokens of tasks as a list": progress(task_tokens=[3]),
    "a position of other words": progress(position={"here": 3}),
    "a best step without a metric": progress(best={"step": 2}),
    "two to the power of 30 leaves": with_state(nested),
    "a list in itself": with_state(endless),
    "the generators are none": with_state(lambda own: own.update(random=None), "rank-0.pt"),
    "the generators are beyond numbers": with_state(
        lambda own: own["random"].update(python=[3, [10**30] * 625, None]), "rank-0.pt"
    ),
    "the generators are torch's code": contents("rank-0.pt", pickled({"random": Code()})),
    "the generators are a pickle": contents("rank-0.pt", pickle.dumps({"random": 3})),
    "the state is empty": contents("state.pt", b""),
    "the state is compressed": compressed,
    "the state makes many bytes": allocating,
    "a tensor claims a terabyte": with_state(lambda state: state.update(more=torch.zeros(1).expand(1 << 38))),
    "a tensor without contents": with_state(lambda state: state.update(more=torch.empty(1 << 38, device="meta"))),
    "weights of another shape": weights(lambda t: t.update({first_tensor(t): torch.zeros(2, 2)})),
    "weights are missing": weights(lambda t: t.__delitem__(first_tensor(t))),
    "more weights": weights(lambda t: t.update(more=torch.zeros(2))),
    "a header of 2**63 bytes": contents("model.safetensors", struct.pack("<Q", 1 << 63) + b"{}"),
    "weights that are no file of weights": contents("model.safetensors", b"not weights"),
}


@pytest.mark.parametrize("damage", [*MANIFESTS.values(), *CONTENTS.values()], ids=[*MANIFESTS, *CONTENTS])
def test_g03_a_damaged_checkpoint_is_passed_over(run: Path, trainer: Trainer, tmp_path: Path, damage: Any):
    checkpoint = copied(run, tmp_path / "run")
    damage(checkpoint)
    said = resumed(tmp_path / "run", trainer)
    assert trainer.state.step == 2
    assert [line for line in said if line.startswith(f"checkpoint {NEWEST} ")], said
    assert f"resume: {OLDER} of {tmp_path / 'run'}" in said
    assert checkpoint.with_name(f"broken-{NEWEST}").exists()
    assert not checkpoint.exists()
    assert not Path("pwned").exists()


@pytest.mark.parametrize("damage", [MANIFESTS["it names no files"], CONTENTS["a negative step"]], ids=["files", "step"])
def test_g03_a_damaged_checkpoint_that_was_named_is_refused(run: Path, tmp_path: Path, damage: Any):
    checkpoint = copied(run, tmp_path / "run")
    damage(checkpoint)
    before = sorted(tmp_path.rglob("*"))
    one = Trainer(replace(own_plan(), resume=str(checkpoint)), prepared(), alone())
    with pytest.raises(ConfigError, match=f"resume=.*{NEWEST}: damaged, ") as caught:
        resumed(tmp_path / "run", one)
    assert caught.value.hint == "resume=auto takes the newest sound one"
    assert sorted(tmp_path.rglob("*")) == before


def test_g03_contents_that_none_has_set_nothing_aside(run: Path, trainer: Trainer, tmp_path: Path):
    """Where no checkpoint can be loaded it may be this version's fault: nothing is renamed, and nothing begins anew."""
    checkpoint = copied(run, tmp_path / "run")
    for one in (checkpoint, checkpoint.with_name(OLDER)):
        progress(mood=3)(one)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=f"{NEWEST} cannot be used: mood is 3"):
        resumed(tmp_path / "run", trainer)
    assert sorted(tmp_path.rglob("*")) == before
