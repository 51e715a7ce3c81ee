"""Every key of the groups that make an optimiser step has an effect on it: on the weights that a few steps leave, or
on what is said of them.

The keys are those of the dataclasses, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
import torch
from small import plan, prepared, tokenizer, vocabulary
from walked import Key, Other, Seen, classes, ids, keys_in, trained

from lmctl.augment.char_noise import CharNoise
from lmctl.augment.word_dropout import WordDropout
from lmctl.compression import top_k
from lmctl.compression.compressor import Compressor
from lmctl.compression.quantise import Fp16, Fp32, Int8, Sign
from lmctl.config.schema import Budget
from lmctl.core.errors import LmctlError
from lmctl.model.bert import Bert
from lmctl.model.pretrained import Pretrained
from lmctl.objective.mlm import MaskedLM
from lmctl.optim.sgd import Sgd
from lmctl.runner.diloco import DiLoCo
from lmctl.runner.fsdp import Fsdp
from lmctl.runner.places import Auto, Cpu, Ddp, Gpu
from lmctl.runner.simulated import Simulated
from lmctl.runner.slurm import Slurm

WIDE = Bert(2, 128, 2, 128, max_positions=64, dropout=0.0, attention_dropout=0.0)
"""Tensors of 4096 values and more, which 8 bits are for."""
LIVELY = Bert(2, 32, 2, 64, max_positions=64)
NO_STEP = {"optim": Sgd()}
TOP: dict[str, Any] = {"quantise": Fp32(), "density": 0.1}


def others(**values: Mapping[str, Any]) -> dict[Key, Other]:
    """Another value, or all that is to be said of it, for keys of components by their names."""
    return {
        (made, name): value if isinstance(value, Other) else Other(value)
        for made, of in values.items()
        for name, value in of.items()
    }


ADVERSARY = others(
    FastGradient={"epsilon": 0.5, "weight": 0.5},
    FreeLB={"epsilon": 0.3, "steps": 2, "step_size": 0.2, "start": 0.3},
    Noise={"augment": WordDropout(), "weight": 0.5, "consistency": 0.5},
    ProjectedGradient={"epsilon": 0.3, "steps": 2, "step_size": 0.2, "weight": 0.5},
    RDrop={"weight": Other(0.5, run={"model": LIVELY})},
    Smart={"epsilon": 0.3, "steps": 2, "step_size": 0.2, "start": 0.05, "weight": 0.5},
)
INT8_LAYERS = {"float_products": "bf16", "exclude": ["*attention*"]}
STORED = {**INT8_LAYERS, "scale": "pow2", "gradients": "bf16"}
EMULATED = {"emulate": True}
PRECISION = others(
    Bf16Pure={"rounding": "kahan", "force": Other(True, given={"rounding": "nearest"})},
    Fp16={"initial_scale": Other(1024.0, shown=True), "growth_interval": Other(1, shown=True)},
    Fp8={
        "scale": Other("row", given=EMULATED),
        "emulate": True,
        "float_products": Other("fp32", given=EMULATED),
        "exclude": Other(["*attention*"], given=EMULATED),
    },
    Int8={**INT8_LAYERS, "stochastic": False, "scale": "pow2"},
    Int8Full={**STORED, "stochastic": False},
    Int8Weights=STORED,
    Int8Lora=INT8_LAYERS,
    Nf4Lora=INT8_LAYERS,
)
COMPRESSED = {
    "error_feedback": False,
    "local_clip": Other(True, run={"clip_norm": 0.05}),
    "dense_below": 2000,
    "exclude": ["*attention*"],
    "simulate_workers": 4,
    "probe_every": Other(1, shown=True),
}
COMPRESSION = others(
    Compressor={
        **COMPRESSED,
        "density": Other(0.3, given=TOP),
        "warmup_steps": Other(2, given=TOP),
        "warmup_density": Other(0.5, given={**TOP, "warmup_steps": 3}),
        "quantise": Sign(),
        "momentum": Other(0.5, given=TOP, run=NO_STEP),
        "mask_momentum": Other(False, given={**TOP, "momentum": 0.5}, run=NO_STEP),
    },
    PowerSgd={**COMPRESSED, "rank": 2, "warm_start": False, "least_ratio": 4.5},
    Fp16={"block": Other(4, shown=True)},
    Int8={"block": 4},
    Sign={"block": 4},
)
ADAM = {"lr": 1e-3, "weight_decay": 0.5, "betas": [0.5, 0.98], "eps": 1e-3, "layer_decay": 0.5}
ADAM |= {"cautious_updates": True, "cautious_decay": True}
OPTIM = others(
    AdamW={
        **ADAM,
        "state_bits": Other(8, run={"model": WIDE}),
        "paged": Other(True, given={"state_bits": 8}, run={"model": WIDE}),
    },
    Muon={**ADAM, "momentum": 0.5, "nesterov": False},
    Sgd={
        "lr": 0.1,
        "momentum": 0.5,
        "nesterov": Other(True, given={"momentum": 0.5}),
        "weight_decay": 0.5,
        "layer_decay": 0.5,
    },
)
SHAPE = {"warmup": 0.6, "floor": 0.5}
SCHEDULE = others(Constant={"warmup": 0.6}, Linear=SHAPE, Cosine=SHAPE, WarmupStableDecay={**SHAPE, "decay": 0.4})
RUNNER = others(DiLoCo={"every": 1, "outer_lr": 0.5, "outer_momentum": 0.5, "workers": 4})
TABLES = {
    "adversary": ADVERSARY,
    "precision": PRECISION,
    "compression": COMPRESSION,
    "optim": OPTIM,
    "schedule": SCHEDULE,
    "runner": RUNNER,
}
NOT_HERE: dict[Key, str] = {
    ("Auto", "among"): "chooses before the first step, see test_precision_auto.py",
    ("Compressor", "threshold"): "finds the same values, see test_the_threshold_is_sampled_only_if_it_says_so",
    **dict.fromkeys(
        [(made, name) for made in ("Ddp", "DiLoCo") for name in ("processes", "device")]
        + [("Simulated", "workers"), ("Simulated", "device")],
        "see test_a_place_is_the_one_that_is_named",
    ),
    **dict.fromkeys(
        [(made, name) for made in ("Ddp", "DiLoCo", "Fsdp") for name in ("nodes", "node_rank", "rendezvous")],
        "see test_nodes.py",
    ),
    **dict.fromkeys([(made, "shared_run_dir") for made in ("Ddp", "DiLoCo", "Fsdp")], "see test_disks.py"),
    **dict.fromkeys([(made, "timeout_s") for made in ("Ddp", "DiLoCo", "Fsdp")], "see test_lost_processes.py"),
    **dict.fromkeys([("Slurm", field.name) for field in fields(Slurm)], "see test_submit.py"),
    **dict.fromkeys(
        [("Fsdp", name) for name in ("processes", "device", "replicas", "offload")], "see tests/parallel/test_fsdp.py"
    ),
    **dict.fromkeys(
        [(made, name) for made in ("Int8Dynamic", "Int8WeightOnly") for name in ("scale", "exclude")],
        "see test_every_key_of_a_quantisation_changes_the_answers",
    ),
}
BASE: dict[str, dict[str, Any]] = {
    "DiLoCo": {"workers": 2, "every": 2},
    "Noise": {"augment": CharNoise()},
    "Compressor": {"quantise": Int8(), "simulate_workers": 2, "dense_below": 64},
    "PowerSgd": {"simulate_workers": 2, "dense_below": 64},
}
"""What a component is made with here, where its defaults do not do."""
ADAPTED = ("Int8Lora", "Nf4Lora")
"""What works on a trained model with adapters only."""


def test_no_key_is_forgotten():
    named = {key for table in TABLES.values() for key in table} | set(NOT_HERE)
    assert named == keys_in(*TABLES, "quantize")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BERT on disk, with the tokenizer of the small text."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trunk")
    Bert(2, 64, 2, 128, max_positions=64).load(vocabulary(), {"mlm": 85}).pretrained().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


FORMATS = {"Fp16": Fp16, "Int8": Int8, "Sign": Sign}
"""Of values, in a compressor."""
SEEN: dict[str, Seen | str] = {}
"""What was seen already, by what was tried: most keys of a component start from the same run."""


def component(group: str, name: str, changes: dict[str, Any]) -> Any:
    if group == "compression" and name in FORMATS:
        return Compressor(**BASE["Compressor"] | {"quantise": FORMATS[name](**changes)})
    return classes(group)[name](**BASE.get(name, {}) | changes)


def tried(group: str, key: Key, changed: bool, trunk: str) -> Seen | str:
    """What a run of three steps with and without the other value is seen to do; the refusal, if it is refused."""
    other, (name, field) = TABLES[group][key], key
    values = {**other.given, **({field: other.value} if changed else {})}
    base: dict[str, Any] = {"objective": MaskedLM(), "budget": Budget(steps=3)} | dict(other.run)
    if name in ADAPTED:
        base["model"] = Pretrained(trunk, dropout=0.0, lora_rank=2)
    try:
        return trained(plan(**base | {group: component(group, name, values)}), prepared())
    except (LmctlError, ValueError) as error:
        return type(error).__name__


def outcome(group: str, key: Key, changed: bool, trunk: str) -> Seen | str:
    """As `tried`, but once for all keys of a component that start alike."""
    other = TABLES[group][key]
    what = repr((group, key[0], other.given, other.run, (key[1], other.value) if changed else None))
    if what not in SEEN:
        SEEN[what] = tried(group, key, changed, trunk)
    return SEEN[what]


ENTRIES = [(group, key) for group, table in TABLES.items() for key in table]
REFUSED_AS_IT_IS = {("Fp8", "emulate"), ("Bf16Pure", "force")}
"""What a CPU has not, and what one must insist on: the other value is what makes it legal."""
REFUSED_OTHERWISE = {("AdamW", "paged")}
"""What only a GPU has."""


@pytest.mark.parametrize(("group", "key"), ENTRIES, ids=ids)
def test_every_key_changes_the_step(group: str, key: Key, trunk: str):
    first, other = (outcome(group, key, changed, trunk) for changed in (False, True))
    assert isinstance(first, Seen) == (key not in REFUSED_AS_IT_IS)
    assert isinstance(other, Seen) == (key not in REFUSED_OTHERWISE)
    if isinstance(first, Seen) and isinstance(other, Seen):
        assert first.said != other.said if TABLES[group][key].shown else first.weights != other.weights


@pytest.mark.parametrize(
    ("group", "key"),
    [("optim", ("AdamW", "lr")), ("compression", ("PowerSgd", "rank")), ("precision", ("Int8", "scale"))],
    ids=ids,
)
def test_the_same_run_is_seen_to_be_the_same(group: str, key: Key, trunk: str):
    """Otherwise nothing above would be proof of anything."""
    assert outcome(group, key, False, trunk) == tried(group, key, False, trunk)


def test_the_threshold_is_sampled_only_if_it_says_so(monkeypatch: pytest.MonkeyPatch):
    looked = []
    monkeypatch.setattr(top_k, "candidates", lambda size, k: looked.append(k))
    few = {**BASE["Compressor"], **TOP}
    for threshold, samples in (("exact", False), ("sampled", True)):
        looked.clear()
        trained(plan(budget=Budget(steps=1), compression=Compressor(**few, threshold=threshold)), prepared())
        assert bool(looked) == samples


def test_a_place_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch):
    """On a machine with four GPUs, and on one without."""
    for gpus in (4, 0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpus=gpus: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert (Auto().world(), Auto().on_cpu()) == (gpus or 1, gpus == 0)
        assert (Cpu().world(), Cpu().on_cpu(), Gpu().world(), Gpu().on_cpu()) == (1, True, 1, False)
        assert (Ddp().world(), Ddp().on_cpu()) == (gpus or 2, gpus == 0)
        assert (Ddp(3).world(), Ddp(3, device="cpu").world(), Ddp(device="cpu").world()) == (3, 3, 2)
        assert (DiLoCo().world(), DiLoCo(3, device="cpu").world(), DiLoCo(workers=3).world()) == (gpus or 2, 3, 1)
        assert (DiLoCo().on_cpu(), DiLoCo(device="cpu").on_cpu()) == (gpus == 0, True)
        assert (Simulated().world(), Simulated().on_cpu()) == (1, gpus == 0)
        assert (Simulated().simulated, Simulated(workers=3).simulated, Ddp(3).simulated) == (2, 3, None)
        assert (Fsdp().world(), Fsdp(6, 3, device="cpu").shards(6)) == (gpus or 2, 2)
        for made in (Ddp, Fsdp, Simulated):
            assert made(device="cpu").on_cpu()
            assert not made(device="gpu").on_cpu()


@pytest.mark.parametrize("name", sorted(classes("quantize")))
def test_every_key_of_a_quantisation_changes_the_answers(name: str):
    option = classes("quantize")[name]
    assert {field.name for field in fields(option)} == {"scale", "exclude"}
    inputs = {"input_ids": torch.arange(5, 25)[None], "attention_mask": torch.ones(1, 20, dtype=torch.long)}

    def answers(**settings: Any) -> torch.Tensor:
        torch.manual_seed(0)
        network = WIDE.load(vocabulary(), {"mlm": 85}).eval()
        option(**settings).quantize(network.model, torch.device("cpu"))
        with torch.no_grad():
            return network.model(**inputs).logits

    first = answers()
    assert torch.equal(first, answers())
    assert not torch.equal(first, answers(scale="pow2"))
    assert not torch.equal(first, answers(exclude=["*attention*"]))
