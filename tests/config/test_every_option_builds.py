"""Every file in conf/ composes, builds, and shows exactly the keys its component has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command import HELPERS, ROOT
from omegaconf import DictConfig, OmegaConf, open_dict

from lmctl.config.build import build, component_class
from lmctl.config.comments import first_comment
from lmctl.config.compose import Composer, conf_dir
from lmctl.config.options import GROUPS
from lmctl.config.verb import verbs
from lmctl.mix.mix import Mix

CONF = conf_dir()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if len(path.parts) > 1 and path.parts[0] != "recipe"]
"""Recipes are no components: test_stages.py looks at them."""
KINDS: dict[str, Any] = {group: kind for kind, group in GROUPS.items()} | {"mix": Mix}


NEEDED = {
    "data/parallel.yaml": ["data.source=given", "data.target=given"],
    "mix/pairs.yaml": ["data.path=given"],
    "model/pretrained.yaml": ["init_from=given"],
    "model/teacher_layers.yaml": ["model.teacher=given"],
}
"""What must be said besides the option's name, where it is more than a required key."""


@cache
def defaults() -> tuple[Composer, DictConfig]:
    """Composing takes longer than all else that is done here."""
    composer = Composer("train")
    return composer, composer.task([])


@cache
def in_place(path: Path) -> DictConfig:
    """The option's settings, in a config where what they refer to exists and what they require is given."""
    composer, whole = defaults()
    cfg = deepcopy(whole)
    group = path.parent.as_posix()
    if group == "mix":  # some choose the model and the data that suit them
        return composer.task([f"mix={path.stem}", "name=given", *NEEDED.get(str(path), [])]).mix
    with open_dict(cfg):
        cfg[group] = composer.load_option(group, path.stem)
        for key in list(cfg[group]):
            if OmegaConf.is_missing(cfg[group], key):
                cfg[group][key] = "given"
        for word in NEEDED.get(str(path), []):
            OmegaConf.update(cfg, *word.split("="))
    return cfg[group]


def components(node: Any) -> Iterator[DictConfig]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_interpolation(node, key):
                yield from components(node[key])


@pytest.mark.parametrize("path", FILES, ids=str)
def test_first_line_says_what_it_is(path: Path):
    first = first_comment((CONF / path).read_text(encoding="utf-8"))
    assert 0 < len(first) <= 118
    assert not first.endswith(".")


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_option_builds(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether or not the library that it needs is installed, which `require` looks at."""
    monkeypatch.setattr("lmctl.config.build.require", lambda *_: None)
    build(in_place(path), KINDS[path.parent.as_posix()])


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_option_shows_every_key(path: Path):
    for node in components(in_place(path)):
        cls = component_class(node, ("lmctl.",))
        assert set(node) - {"_target_"} == {field.name for field in fields(cls) if field.init}


@pytest.mark.parametrize("name", verbs())
def test_every_verb_composes(name: str):
    required = {"model_path", "teacher", "runs"}
    given = required & {field.name for field in fields(verbs()[name].schema) if name != "train"}
    verbs()[name].check(Composer(name).task([f"{key}=given" for key in given]))


def test_building_is_cheap():
    """Every option of every group, and not a line of torch, or of what else takes seconds."""
    script = """
import sys
import lmctl.config.build
from test_every_option_builds import KINDS, OPTIONS, build, in_place
lmctl.config.build.require = lambda *_: None
for path in OPTIONS:
    build(in_place(path), KINDS[path.parent.as_posix()])
print({"torch", "transformers", "accelerate", "datasets"} & set(sys.modules))
"""
    here = Path(__file__).parent
    environment = {"PYTHONPATH": f"{here}:{HELPERS}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
