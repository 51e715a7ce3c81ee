"""What a stranger's model directory might try: code, downloads, files elsewhere, sizes that exhaust the machine."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from canary import Trap
from safetensors.torch import save_file

from lmctl.cli.main import main
from lmctl.core.foreign_config import taken
from lmctl.core.pretrained_files import config_of


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that answers."""
    return foreign.save(tmp_path_factory.mktemp("models") / "gpt2", "GPT2LMHeadModel", "[SEP] $A")


@pytest.fixture
def theirs(sound: Path, trap: Trap) -> Path:
    """A copy to change."""
    return foreign.copied(sound, trap.root / "theirs")


def answer(trap: Trap, folder: Path) -> str:
    """What the model writes after a prompt; nothing else may happen."""
    assert main(["generate", f"model_path={folder}", "prompt=the cat", "max_new_tokens=3", "runner=cpu"]) == 0
    assert not trap.sprung.exists()
    return trap.capsys.readouterr().out


def asked(folder: Path) -> list[str]:
    return ["generate", f"model_path={folder}", "prompt=the cat", "max_new_tokens=3", "runner=cpu"]


IGNORED: dict[str, dict[str, Any]] = {
    "attention from the hub": {"_attn_implementation": "kernels-community/flash-attn"},
    "attention, public name": {"attn_implementation": "kernels-community/flash-attn"},
    "attention, internal name": {"_attn_implementation_internal": "kernels-community/flash-attn"},
    "experts from the hub": {"experts_implementation": "kernels-community/moe"},
    "a map of code": {"auto_map": {"AutoConfig": "evil.Run", "AutoModelForCausalLM": "evil.Run"}},
    "a map of code on the hub": {"auto_map": {"AutoModelForCausalLM": "nobody/evil--evil.Run"}},
    "kernels": {"use_kernels": True, "kernel_config": {"kernel_mapping": {"RMSNorm": "nobody/evil:Run"}}},
    "fusion": {"fusion_config": {"patch_embeddings": True}},
    "weights elsewhere": {"transformers_weights": "../weights.safetensors"},
    "pickled weights": {"transformers_weights": "pytorch_model.bin"},
    "another place": {"_name_or_path": "nobody/evil", "name_or_path": "nobody/evil", "_commit_hash": "../../x"},
    "processes": {"distributed_config": {"tp_size": 2}, "base_model_tp_plan": {"*": "colwise"}},
    "generating code": {"custom_generate": "nobody/evil", "custom_pipelines": {"x": {"impl": "evil.Run"}}},
    "a processor": {"processor_class": "evil.Run", "feature_extractor_type": "evil.Run"},
    "a key of tomorrow": {"run_this": "evil.Run", "load_that": {"x": ["evil.Run"]}},
}


@pytest.mark.parametrize("changes", IGNORED.values(), ids=IGNORED)
def test_keys_that_no_architecture_declares_do_nothing(changes: dict[str, Any], sound: Path, theirs: Path, trap: Trap):
    (theirs / "evil.py").write_text((trap.root / "path" / "evil.py").read_text())
    foreign.edit(theirs, "config.json", **changes)
    config = config_of("x", str(theirs))
    assert config.to_dict() == config_of("x", str(sound)).to_dict() | {"_name_or_path": config._name_or_path}
    assert config._attn_implementation == config_of("x", str(sound))._attn_implementation


def test_such_a_model_answers_as_without_them(sound: Path, theirs: Path, trap: Trap):
    everything = {key: value for changes in IGNORED.values() for key, value in changes.items()}
    foreign.edit(theirs, "config.json", **everything)
    foreign.edit(theirs, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Run", "evil.Run"]})
    (theirs / "custom_generate").mkdir()
    (theirs / "custom_generate" / "generate.py").write_text((trap.root / "path" / "evil.py").read_text())
    (theirs / "chat_template.jinja").write_text("{% for i in range(10**9) %}{{ ''.__class__ }}{% endfor %}")
    assert answer(trap, theirs) == answer(trap, sound).replace(str(sound), str(theirs))


def test_what_a_class_declares_is_taken():
    """Sizes, names of activations, and earlier names; nested mappings lose what names code."""
    from transformers import LlamaConfig

    scaling = {"rope_type": "linear", "factor": 2.0}
    given = {"hidden_size": 8, "hidden_act": "gelu", "unknown": 3, "rope_scaling": scaling}
    more = {"other": "text", "rope_scaling": scaling | {"attn_implementation": "x/y"}}
    assert taken(given | more, LlamaConfig) == given


REFUSED: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "kernels of fp8": {"quantization_config": {"quant_method": "fp8"}},
    "a quantisation that is none": {"quantization_config": "evil.Run"},
    "a vocabulary of 10^10": {"vocab_size": 10**10},
    "a vocabulary of all numbers": {"vocab_size": 10**4, "n_embd": 10**4, "n_inner": 10**4},
    "layers": {"n_layer": 10**7},
    "layers that the bound admits": {"n_layer": 200, "n_embd": 4000, "n_head": 2},
    "width": {"n_embd": 10**9, "n_head": 1},
    "heads": {"n_head": 10**8},
    "a size below nothing": {"n_embd": -32},
    "positions": {"n_positions": 10**9},
    "a number beyond all": {"n_positions": 10**30},
    "a size as text": {"n_embd": "32"},
    "a size as a list": {"vocab_size": [32]},
    "type of nothing": {"model_type": "evil.Run"},
    "type as a list": {"model_type": ["gpt2"]},
    "code of its own": {"model_type": "nothing", "auto_map": {"AutoConfig": "evil.Run"}},
    "architectures": {"architectures": [["x"]]},
    "an activation of ours": {"activation_function": "evil.Run"},
    "labels": {"id2label": {"x": 1}},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_a_config_that_cannot_be_true(changes: dict[str, Any], theirs: Path, trap: Trap):
    (theirs / "evil.py").write_text((trap.root / "path" / "evil.py").read_text())
    foreign.edit(theirs, "config.json", **changes)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    trap.refused(*asked(theirs))
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KiB"


def write_header(folder: Path, entries: dict[str, Any] | bytes, length: int | None = None, data: int = 0) -> None:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    head = struct.pack("<Q", len(text) if length is None else length)
    (folder / "model.safetensors").write_bytes(head + text + b"\0" * data)


def entry(shape: list[Any], begin: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "a header of 2^63": lambda folder: write_header(folder, {}, 1 << 63),
    "a header as long as it says": lambda folder: os.truncate(folder / "model.safetensors", 8),
    "a nested header": lambda folder: write_header(folder, b"[" * 100_000),
    "a header that is a list": lambda folder: write_header(folder, b"[]"),
    "tensors on one place": lambda folder: write_header(
        folder, {f"t{i}": entry([1000], 0, 4000) for i in range(1000)}, data=4000
    ),
    "a shape without bytes": lambda folder: write_header(folder, {"a": entry([10**9], 0, 4)}, data=4),
    "a shape below nothing": lambda folder: write_header(folder, {"a": entry([-1, -1], 0, 4)}, data=4),
    "a shape that overflows": lambda folder: write_header(folder, {"a": entry([1 << 40] * 4, 0, 4, "F4")}, data=4),
    "a place behind the end": lambda folder: write_header(folder, {"a": entry([1], 1 << 60, (1 << 60) + 4)}, data=4),
    "a shape of text": lambda folder: write_header(folder, {"a": entry(["1"], 0, 4)}, data=4),
    "a gap": lambda folder: write_header(folder, {"a": entry([1], 4, 8)}, data=8),
    "nothing": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "text": lambda folder: (folder / "model.safetensors").write_text("hello world"),
    "a device": lambda folder: relink(folder / "model.safetensors", "/dev/zero"),
    "a pipe": lambda folder: ((folder / "model.safetensors").unlink(), os.mkfifo(folder / "model.safetensors")),
    "other tensors": lambda folder: save_file({"x": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"}),
}


def relink(file: Path, target: str) -> None:
    file.unlink()
    file.symlink_to(target)


def test_sound_headers_only(theirs: Path, trap: Trap):
    for name, damage in WEIGHTS.items():
        foreign_copy = trap.root / name.replace(" ", "-")
        shutil.copytree(theirs, foreign_copy)
        damage(foreign_copy)
        trap.refused(*asked(foreign_copy))


def index(folder: Path, place: object) -> None:
    """Weights in shards, one of which is `place`."""
    shutil.move(folder / "model.safetensors", folder / "a.safetensors")
    names = {"transformer.wte.weight": place, "transformer.wpe.weight": "a.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize(
    "place", ["../x.safetensors", "/etc/hostname", "a/../../x", "missing.safetensors", 3, None, ["a"]]
)
def test_shards_lie_in_the_directory(place: object, theirs: Path, trap: Trap):
    shutil.copy(theirs / "model.safetensors", trap.root / "x.safetensors")
    index(theirs, place)
    trap.refused(*asked(theirs))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                  "lmctl_tasks.json", "vocab.txt", "special_tokens_map.json"])  # fmt: skip
def test_files_lie_in_the_directory(name: str, theirs: Path, trap: Trap):
    (trap.root / "secret").write_text("password")
    (theirs / name).unlink(missing_ok=True)
    (theirs / name).symlink_to(trap.root / "secret")
    assert "password" not in trap.refused(*asked(theirs))


def test_links_of_the_hubs_cache_are_followed(sound: Path, trap: Trap):
    """Which keeps the files of all commits in blobs/, and links to them."""
    blobs, snapshot = trap.root / "models--x" / "blobs", trap.root / "models--x" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in sound.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert answer(trap, snapshot)


class Evil:
    """A pickle that runs code."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return open, (self.place, "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pth"])
def test_pickles_are_not_opened(name: str, theirs: Path, trap: Trap):
    (theirs / name).write_bytes(pickle.dumps(Evil(trap.sprung)))
    assert answer(trap, theirs)
    (theirs / "model.safetensors").unlink()
    assert "save_pretrained" in trap.refused(*asked(theirs))


def test_an_adapter_leads_nowhere(theirs: Path, trap: Trap):
    (theirs / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../x", "peft_type": "LORA"}))
    trap.refused(*asked(theirs))


@pytest.mark.parametrize(
    "tasks",
    [
        *([], {"a": 1}, {"a": {}}, {"a": {"objective": 1, "reads": "documents", "label_kind": None, "labels": []}}),
        {"a": {"objective": "X", "reads": "evil", "label_kind": None, "labels": []}},
        {"a": {"objective": "X", "reads": "documents", "label_kind": "evil", "labels": []}},
        {"a": {"objective": "X", "reads": "documents", "label_kind": None, "labels": [1]}},
        {"a": {"objective": "X", "reads": "documents", "label_kind": None, "labels": "x"}},
        {"a": {"objective": "X", "reads": "documents", "label_kind": None, "labels": [], "end_of": "evil"}},
    ],
)
def test_notes_that_lmctl_did_not_write(tasks: object, theirs: Path, trap: Trap):
    (theirs / "lmctl_tasks.json").write_text(json.dumps(tasks))
    trap.refused(*asked(theirs))


GENERATION: list[dict[str, Any]] = [
    {"custom_generate": "nobody/evil", "assistant_model": "nobody/evil", "prompt_lookup_num_tokens": 3},
    {"max_length": 10**9, "max_new_tokens": 10**9, "min_length": 10**9},
    {"temperature": 3.0, "do_sample": True, "guidance_scale": 3.0, "constraints": [1]},
    {"suppress_tokens": [10**9], "bad_words_ids": [[10**9]], "sequence_bias": [[[1], 1e9]]},
    {"transformers_version": ["x"], "generation_kwargs": {"x": 1}, "__class__": "evil"},
]


def test_how_a_model_generates_is_not_its_own_to_say(sound: Path, theirs: Path, trap: Trap):
    """Only numbers of its pieces count."""
    for changes in GENERATION:
        foreign.edit(theirs, "generation_config.json", **changes)
    assert answer(trap, theirs) == answer(trap, sound).replace(str(sound), str(theirs))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_return_sequences": 10**9},
        {"num_beams": 10**6, "do_sample": False, "early_stopping": "evil"},
        {"watermarking_config": {"x": 1}},
        {"compile_config": {"backend": "evil"}, "cache_implementation": "evil", "cache_config": {"x": 1}},
        {"eos_token_id": "evil"},
    ],
)
def test_what_transformers_refuses_to_generate_with(changes: dict[str, Any], theirs: Path, trap: Trap):
    foreign.edit(theirs, "generation_config.json", **changes)
    trap.refused(*asked(theirs))


def test_to_go_on_from_such_a_model_is_refused_as_well(theirs: Path, trap: Trap):
    foreign.edit(theirs, "config.json", vocab_size=10**10)
    (trap.root / "text.txt").write_text("the cat sits\n" * 50)
    words = ["data=text", f"data.path={trap.root}/text.txt", "runner=cpu", f"cache_dir={trap.root}", "name=x"]
    for verb in ("train", "plan"):
        trap.refused(verb, f"init_from={theirs}", "mix=clm", *words)
    trap.refused("distill", f"teacher={theirs}", "mix=clm", "model=gpt2_tiny", *words)


HUB = {"model_type": "dpt", "backbone": "nobody/evil", "use_timm_backbone": True, "use_pretrained_backbone": True}
GPT2 = {"model_type": "gpt2"}


@pytest.mark.parametrize(
    "config",
    [
        HUB,
        {**HUB, "model_type": "upernet"},
        {"model_type": "encoder-decoder", "encoder": HUB, "decoder": GPT2},
        {"model_type": "vision-encoder-decoder", "encoder": HUB, "decoder": GPT2},
        {"model_type": "llava", "text_config": GPT2, "vision_config": HUB},
    ],
    ids=lambda config: config["model_type"],
)
def test_a_config_asks_nothing_of_the_hub(
    config: dict[str, Any], theirs: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
):
    asked_for: list[Any] = []

    def lookup(*words: Any, **_: Any) -> Any:
        asked_for.append(words)
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.getaddrinfo", lookup)
    (theirs / "config.json").write_text(json.dumps(config))
    trap.refused(*asked(theirs))
    assert asked_for == []
