"""From config nodes to components: what is built, and how each kind of mistake is refused."""
# ruff: noqa: E501  (messages stand on one line, as they are printed)

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, Literal, Optional, Protocol, runtime_checkable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lmctl.config.build import build, read_root
from lmctl.config.groups import PeekConfig, TrainConfig
from lmctl.config.options import spell_out
from lmctl.config.schema import Budget
from lmctl.config.table import structured
from lmctl.core.errors import ConfigError
from lmctl.mix.mix import Mix, Task
from lmctl.objective.base import Objective
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence


@runtime_checkable
class Cuts(Protocol):
    def cut(self) -> None: ...


@dataclass(frozen=True)
class Knife:
    """A component that takes one of everything."""

    length: float
    teeth: int = 0
    name: str = "knife"
    folding: bool = False
    steel: Literal["carbon", "stainless"] = "carbon"
    angles: tuple[float, float] = (15.0, 20.0)
    marks: list[str] = field(default_factory=list)
    owner: Optional[str] = None
    extra: Any = None
    spare: Optional[Cuts] = None
    block: dict[str, Cuts] = field(default_factory=dict)
    row: list[Cuts] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ValueError(f"length must be above 0, got {self.length}")
        if self.folding and self.teeth:
            raise ValueError("a folding one has no teeth")

    def cut(self) -> None: ...


@dataclass(frozen=True)
class Spoon:
    """A component that cannot cut."""


def nothing() -> None: ...


@pytest.fixture(autouse=True)
def drawer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("drawer")
    for thing in (Knife, Spoon, nothing):
        setattr(module, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "drawer", module)


OUTSIDE = "is outside the trusted packages (drawer)"
KNIFE = {"_target_": "drawer.Knife", "length": 3.0}


def built(settings: dict[str, Any]) -> Any:
    cfg = OmegaConf.create({"tool": {**KNIFE, **settings}})
    return build(cfg.tool, Cuts, trusted=("drawer.",))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"length": 3.0, "teeth": 0}),
        ({"length": 3}, {"length": 3.0}),
        ({"length": "3e-1"}, {"length": 0.3}),
        ({"name": "no"}, {"name": "no"}),
        ({"angles": [10, 12.5]}, {"angles": (10.0, 12.5)}),
        ({"marks": ["a", "b"]}, {"marks": ["a", "b"]}),
        ({"owner": None}, {"owner": None}),
        ({"extra": {"a": [1, {"b": 2}]}}, {"extra": {"a": [1, {"b": 2}]}}),
        ({"steel": "stainless"}, {"steel": "stainless"}),
        ({"spare": KNIFE}, {"spare": Knife(3.0)}),
        ({"spare": None}, {"spare": None}),
        ({"block": {"big": KNIFE}}, {"block": {"big": Knife(3.0)}}),
        ({"block": {}}, {"block": {}}),
        ({"row": [KNIFE, KNIFE]}, {"row": [Knife(3.0), Knife(3.0)]}),
    ],
    ids=str,
)
def test_builds(settings: dict[str, Any], expected: dict[str, Any]):
    knife = built(settings)
    assert {key: getattr(knife, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lenght": 1}, "unknown key 'tool.lenght'; did you mean tool.length?"),
        ({"_partial_": True}, "unknown key 'tool._partial_'"),
        ({"length": "???"}, "'tool.length' is required"),
        ({"length": "long"}, "tool.length must be a number, got long"),
        ({"length": None}, "tool.length cannot be null"),
        ({"length": -1}, "tool.length must be above 0, got -1.0"),
        ({"folding": True, "teeth": 3}, "tool: a folding one has no teeth"),
        ({"folding": "maybe"}, "tool.folding must be true or false, got maybe"),
        ({"teeth": 1.5}, "tool.teeth must be a whole number, got 1.5"),
        ({"steel": "stainles"}, "tool.steel must be one of carbon, stainless, got stainles; did you mean stainless?"),
        ({"spare": {**KNIFE, "length": -1}}, "tool.spare.length must be above 0, got -1.0"),
        ({"spare": {"_target_": "drawer.Spoon"}}, "tool.spare: Spoon cannot serve as Cuts"),
        ({"spare": "knife"}, "tool.spare: expected a component with a _target_, got 'knife'"),
        ({"block": {"a": {"_target_": "drawer.Spoon"}}}, "tool.block.a: Spoon cannot serve as Cuts"),
        ({"row": [KNIFE, {**KNIFE, "tooth": 1}]}, "unknown key 'tool.row[1].tooth'; did you mean tool.row[1].teeth?"),
        ({"_target_": "drawer.Spoon", "length": 1}, "unknown key 'tool.length'"),
        ({"_target_": "os.system"}, f"tool._target_=os.system {OUTSIDE}"),
        ({"_target_": "drawer2.Knife"}, f"tool._target_=drawer2.Knife {OUTSIDE}"),
        ({"_target_": "drawer.nothing"}, "tool._target_=drawer.nothing is not a component (a dataclass)"),
        ({"spare": {"_target_": "os.system"}}, f"tool.spare._target_=os.system {OUTSIDE}"),
    ],
    ids=str,
)
def test_refuses(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        built(settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typo": 1}, "unknown key 'typo'"),
        ({"budgets": 1}, "unknown key 'budgets'; did you mean budget?"),
        ({"batch": {"sise": 1}}, "unknown key 'batch.sise'; did you mean batch.size?"),
        ({"batch": {"seq_len": 4}}, "batch.seq_len must be at least 8, got 4"),
        ({"batch": {"size": None}}, "batch: give size or tokens"),
        ({"early_stop": {"patience": 0}}, "early_stop.patience must be above 0, got 0"),
        ({"seed": "x"}, "seed must be a whole number, got x"),
    ],
    ids=str,
)
def test_root_is_checked(changes: dict[str, Any], message: str):
    cfg = OmegaConf.create(OmegaConf.to_yaml(structured(TrainConfig)))
    groups = (
        "model data augment mix tokenizer precision compression adversary distill optim schedule average runner tracker"
    )
    for group in groups.split():
        cfg[group] = None
    cfg.name = "x"
    read_root(cfg, TrainConfig)
    with pytest.raises(ConfigError) as caught:
        read_root(OmegaConf.merge(cfg, changes), TrainConfig)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_root_rules_need_no_section_in_front():
    cfg = OmegaConf.create(OmegaConf.to_yaml(structured(PeekConfig)))
    cfg.model, cfg.data, cfg.augment, cfg.mix, cfg.tokenizer, cfg.split = None, None, None, None, None, "test"
    with pytest.raises(ConfigError, match=r"^split must be train or valid, got 'test'$"):
        read_root(cfg, PeekConfig)


def option(group: str, name: str, place: str) -> Any:
    """Stands in for the YAML files."""
    known = {
        ("objective", "mlm"): {"_target_": "lmctl.objective.mlm.MaskedLM"},
        ("objective", "mlm_nsp"): {"_target_": "lmctl.objective.mlm_nsp.MaskedLMAndNextSentence"},
        ("data", "pydocs"): {"_target_": "lmctl.data.pydocs.PyDocs", "valid_share": 0.1},
    }
    if (group, name) not in known:
        raise ConfigError(f"no option {name} in {group} at {place}")
    return OmegaConf.create(known[group, name])


def mix_of(tasks: dict[str, Any]) -> Mix:
    cfg = OmegaConf.create({"mix": {"_target_": "lmctl.mix.mix.Mix", "tasks": tasks}, "data": "pydocs"})
    spell_out(cfg, TrainConfig, option)
    return build(cfg.mix, Mix)


def test_names_of_options_become_components():
    corpus = {"objective": "mlm_nsp", "data": "pydocs", "weight": 0.8}
    mix = mix_of({"corpus": corpus, "b": {"objective": "mlm", "data": "${data}"}})
    assert isinstance(mix.tasks["corpus"], Task)
    assert isinstance(mix.tasks["corpus"].objective, MaskedLMAndNextSentence)
    assert mix.tasks["corpus"].weight == 0.8
    assert mix.tasks["b"].objective == MaskedLM()
    assert mix.tasks["b"].data == mix.tasks["corpus"].data


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"objective": "mlmm", "data": "pydocs"}, "no option mlmm in objective at mix.tasks.corpus.objective"),
        ({"objective": "mlm", "data": "pydocs", "wieght": 1}, "unknown key 'mix.tasks.corpus.wieght'; did you mean mix.tasks.corpus.weight?"),
        ({"objective": "mlm", "data": "pydocs", "weight": 0}, "mix.tasks.corpus.weight must be above 0, got 0"),
        ({"objective": "mlm"}, "'mix.tasks.corpus.data' is required"),
        ({"objective": {"_target_": "lmctl.data.pydocs.PyDocs"}, "data": "pydocs"}, "mix.tasks.corpus.objective: PyDocs cannot serve as Objective"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_in_a_mix(task: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        mix_of({"corpus": task})
    assert str(caught.value) == message


@given(rate=st.floats(0.001, 0.999), whole=st.booleans())
def test_what_is_written_out_is_what_is_built(rate: float, whole: bool):
    node = {"_target_": "lmctl.objective.mlm.MaskedLM", "mask_rate": rate, "whole_words": whole}
    cfg = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create({"objective": node})))
    assert build(cfg.objective, Objective) == MaskedLM(rate, whole)


@given(st.dictionaries(st.sampled_from(["steps", "tokens", "epochs", "minutes", "step", "x"]), st.integers(-3, 3)))
def test_a_section_is_built_or_refused_and_nothing_else(values: dict[str, int]):
    good = set(values) <= {"steps", "tokens", "epochs", "minutes"} and all(v > 0 for v in values.values())
    cfg = OmegaConf.create({"budget": asdict(Budget()) | values})
    if good:
        assert read_root(cfg.budget, Budget) == Budget(**values)
    else:
        with pytest.raises(ConfigError, match="budget"):
            read_root(cfg.budget, Budget)
