"""A LoRA adapter of PEFT is used, gone on from and taught by as a model: merged into its base, as PEFT merges it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import peft
import pytest
import torch
import transformers
import use_models
from in_process import succeed
from safetensors.torch import load_file, save_file

from lmctl.core.errors import ConfigError


def adapter(folder: Path, base: Path, kind: str, **settings: Any) -> tuple[Path, Any]:
    """A directory as PEFT saves it, of an adapter whose weights are not zero; and PEFT's own model."""
    torch.manual_seed(1)
    number = {"num_labels": 3} if kind.endswith("SequenceClassification") else {}
    model = getattr(transformers, kind).from_pretrained(base, **number)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=0.1, **settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.eval().save_pretrained(folder)
    return folder, wrapped


CASES: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any]]] = {
    "decoder": (use_models.gpt2, "GPT2LMHeadModel", {"task_type": "CAUSAL_LM", "target_modules": ["c_attn", "c_proj"]}),
    "by root, of several ranks": (
        use_models.bert,
        "BertForMaskedLM",
        {"target_modules": ["query", "dense"], "use_rslora": True, "rank_pattern": {"0.*query": 2}},
    ),
    "classifier": (
        lambda folder: use_models.bert(folder, "BertForPreTraining"),
        "BertForSequenceClassification",
        {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_merged_adapter_is_pefts(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "cache"))
    make, kind, settings = CASES[case]
    base = make(tmp_path / "base")
    place, theirs = adapter(tmp_path / "adapter", base, kind, **settings)
    loaded = use_models.opened(place)
    ids = torch.arange(4, 16)[None]
    with torch.no_grad():
        ours, expected = loaded.model(ids).logits, theirs(ids).logits
        plain = getattr(transformers, kind).from_pretrained(base, num_labels=expected.shape[-1])(ids).logits
    assert torch.allclose(ours, expected, atol=5e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)
    assert f"adapter, merged into {base}" in capsys.readouterr().err
    assert Path(loaded.path).is_relative_to(tmp_path / "cache" / "models")
    assert use_models.opened(place).path == loaded.path
    assert {file.name for file in place.iterdir()} <= {"README.md", "adapter_config.json", "adapter_model.safetensors"}


def test_an_adapter_is_gone_on_from(tmp_path: Path):
    base = use_models.bert(tmp_path / "base")
    adapter(tmp_path / "adapter", base, "BertForMaskedLM", target_modules=["query"])
    (tmp_path / "text.txt").write_text("the cat sits\na b c\n\nthe red dog\n\nthe cat\n" * 20)
    words = ["data=text", "data.path=text.txt", "mix=mlm", "batch.size=4", "batch.seq_len=16", "budget.steps=1"]
    done = succeed("train", "init_from=adapter", *words, "name=on", cwd=tmp_path)
    assert "init_from=adapter: an adapter, merged into" in done.stderr
    assert (tmp_path / "runs/on/model/model.safetensors").is_file()


def edited(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: foreign.edit(folder, "adapter_config.json", **changes)


def renamed(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name.replace("layer.0", "layer.7"): value for name, value in load_file(file).items()}, file)


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "base elsewhere": (
        edited(base_model_name_or_path="org/model"),
        "which is no directory here",
        "download that model",
    ),
    "no base": (edited(base_model_name_or_path=None), "names no base model", "merge_and_unload"),
    "base gone": (edited(base_model_name_or_path="./gone"), "base_model_name_or_path=./gone: no such directory", ""),
    "another type": (edited(peft_type="IA3"), "of type 'IA3', and LoRA is merged", "merge_and_unload"),
    "DoRA": (edited(use_dora=True), r"with DoRA \(use_dora\)", "merge_and_unload"),
    "alphas": (edited(alpha_pattern={"query": 3}), "another alpha for some layers", "merge_and_unload"),
    "no alpha": (edited(lora_alpha="16"), "lora_alpha is '16', and a number is due", ""),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "without adapter_model",
        "safetensors",
    ),
    "other layers": (renamed, "layer.7.* and its base model has no such layer", "merge_and_unload"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "cache"))
    damage, said, hint = REFUSED[case]
    place, _ = adapter(tmp_path / "a", use_models.bert(tmp_path / "base"), "BertForMaskedLM", target_modules=["query"])
    damage(place)
    with pytest.raises(ConfigError, match=said) as refusal:
        use_models.opened(place)
    assert hint in str(refusal.value.hint)


def test_settings_of_strangers_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of PEFT's own reader they name modules to import, classes to make, and regular expressions."""
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "cache"))
    place, theirs = adapter(
        tmp_path / "a", use_models.bert(tmp_path / "base"), "BertForMaskedLM", target_modules=["query"]
    )
    settings = json.loads((place / "adapter_config.json").read_text())
    evil = {"auto_mapping": {"parent_library": "antigravity", "base_model_class": "x"}, "megatron_core": "antigravity"}
    evil |= {"target_modules": "(a+)+$", "rank_pattern": {"(a+)+$": 2}, "revision": "evil", "runtime_config": {"x": 1}}
    (place / "adapter_config.json").write_text(json.dumps(settings | evil))
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        assert torch.allclose(use_models.opened(place).model(ids).logits, theirs(ids).logits, atol=1e-5)
