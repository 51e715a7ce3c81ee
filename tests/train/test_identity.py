"""Which settings may change on resume: paths may, because what they lead to is compared."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lmctl.cli.application import Application
from lmctl.core.errors import ConfigError
from lmctl.train.run_identity import Identity, models_in, same_config

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
    same_config(config(*MIXES[kind]), config(*MIXES[kind], *MOVED[kind], "run_dir=b", "cache_dir=c", "resume=auto"))


@pytest.mark.parametrize("word", ["data.label=z", "data.text=other", "optim.lr=1", "seed=2"])
def test_nothing_else_may(word: str):
    key = word.partition("=")[0]
    with pytest.raises(ConfigError, match=f"resume: {key} was .* in this run and is .* now"):
        same_config(config(*MIXES["table"]), config(*MIXES["table"], word))


def test_models_of_an_augmentation_are_compared(tmp_path: Path):
    """A moved one is the same, another one in its place is not."""
    for name, weights in (("one", b"1"), ("copy", b"1"), ("other", b"2")):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "model.safetensors").write_bytes(weights)

    def identity(there: str) -> Identity:
        words = ["mix=mlm", "augment=back_translate", f"augment.there={tmp_path / there}", "augment.back=hub/id"]
        resolved = config(*words)
        return Identity(resolved, models_in(resolved), 1)

    began = identity("one").state_dict()
    identity("copy").must_match(began)
    with pytest.raises(ConfigError, match=r"the model of augment\.there is not"):
        identity("other").must_match(began)
    before = {**began, "fingerprints": {}}  # written before models were compared
    identity("one").must_match(before)
    with pytest.raises(ConfigError, match=r"augment\.there was"):
        identity("copy").must_match(before)
