"""Which settings may change on resume: paths may, because what they lead to is compared."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lmctl.cli.application import Application
from lmctl.core.errors import ConfigError
from lmctl.train.run_identity import Identity, changed_keys, models_in, refuse

MIXES = {
    "text": ["mix=mlm", "data=text", "data.path=a.txt", "data.valid_path=v.txt"],
    "parallel": [
        "mix=translate",
        "data=parallel",
        "data.source=s",
        "data.target=t",
        "data.valid_source=vs",
        "data.valid_target=vt",
    ],
    "table": ["mix=classify", "data=table", "data.path=t.csv", "data.valid_path=v.csv", "data.label=y"],
    "models": ["mix=mlm", "init_from=m", "augment=back_translate", "augment.there=th", "augment.back=ba", "teacher=x"],
}
MOVED = {
    "text": ["data.path=b/a.txt", "data.valid_path=b/v.txt"],
    "parallel": ["data.source=b/s", "data.target=b/t", "data.valid_source=b/vs", "data.valid_target=b/vt"],
    "table": ["data.path=b/t.csv", "data.valid_path=b/v.csv"],
    "models": ["init_from=b/m", "augment.there=b/th", "augment.back=b/ba", "teacher=[x,y]"],
}


@cache
def config(*words: str) -> dict[str, Any]:
    return OmegaConf.to_container(Application("train", [*words, "name=x"]).final_config(), resolve=True)  # type: ignore


@pytest.mark.parametrize("kind", MIXES)
def test_places_may_change(kind: str):
    moved = config(*MIXES[kind], *MOVED[kind], "run_dir=b", "cache_dir=c", "resume=auto")
    assert changed_keys(config(*MIXES[kind]), moved) == []


@pytest.mark.parametrize("word", ["data.label=z", "data.text=other", "optim.lr=1", "seed=2"])
def test_nothing_else_may(word: str):
    key = word.partition("=")[0]
    with pytest.raises(ConfigError, match=f"resume: {key} was .* in this run and is .* now"):
        refuse(changed_keys(config(*MIXES["table"]), config(*MIXES["table"], word)), [])


LATER = [("average",), ("z_loss",), ("optim", "cautious_updates"), ("mix", "tasks", "corpus", "objective", "mask_rate")]


@pytest.mark.parametrize("path", LATER, ids=".".join)
def test_keys_of_a_later_version_had_their_defaults(path: tuple[str, ...]):
    today, other = config(*MIXES["text"]), {"average": ["average=ema"], "z_loss": ["z_loss=1"]}.get(path[0])
    older = copy.deepcopy(today)
    node = older
    for step in path[:-1]:
        node = node[step]
    del node[path[-1]]
    assert changed_keys(older, today) == []
    if other:
        changed = changed_keys(older, config(*MIXES["text"], *other))
        assert changed
        assert {change.names[0] for change in changed} == {path[0]}


def test_models_of_an_augmentation_are_compared(tmp_path: Path):
    """A moved one is the same, another one in its place is not."""
    for name, weights in (("one", b"1"), ("copy", b"1"), ("other", b"2")):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "model.safetensors").write_bytes(weights)

    def identity(there: str) -> Identity:
        words = ["mix=mlm", "augment=back_translate", f"augment.there={tmp_path / there}", "augment.back=hub/id"]
        resolved = config(*words)
        return Identity(resolved, models_in(resolved), 1)

    began = Identity.from_state(identity("one").state_dict())
    assert identity("copy").changes(began) == []
    change, *_ = identity("other").changes(began)
    assert change.what.startswith("the model of augment.there is not")
    before = replace(began, fingerprints={})  # written before models were compared
    assert identity("one").changes(before) == []
    change, *_ = identity("copy").changes(before)
    assert change.what.startswith("augment.there was")
