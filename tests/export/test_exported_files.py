"""`lmctl export`: what other programs read from its files is the model, or there are no files."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import foreign
import gguf
import numpy as np
import pytest
import torch
import use_models
from safetensors.torch import load_file

from lmctl.core.errors import ConfigError
from lmctl.export import bench, gguf_layout, hf, push
from lmctl.export.base import ExportFormat
from lmctl.export.gguf import Gguf
from lmctl.export.hf import HuggingFace
from lmctl.export.recurrent_code import CLASSES, add_code
from lmctl.export.subject import Subject, subject_of
from lmctl.export.verify import VerificationFailed, batch_of, compared
from lmctl.inference.load import load
from lmctl.runner.places import Cpu
from lmctl.verbs.export import Export, ExportConfig


def export(model: Path, out: Path, format: ExportFormat | None = None, **settings: Any) -> None:
    Export().run(ExportConfig(export=format or HuggingFace(), model_path=str(model), out=str(out), **settings))


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "export.json").read_text())


@pytest.mark.usefixtures("in_process")
def test_a_directory_in_another_dtype_is_the_same_model(tmp_path: Path):
    model, out = use_models.bert(tmp_path / "bert"), tmp_path / "half"
    export(model, out, dtype="bf16", license="mit")
    there, here = load_file(out / "model.safetensors"), load_file(model / "model.safetensors")
    assert {name: value.dtype for name, value in there.items()} == dict.fromkeys(here, torch.bfloat16)
    assert all(torch.equal(there[name], value.to(torch.bfloat16)) for name, value in here.items())
    assert load(str(out), Cpu()).model.dtype == torch.bfloat16
    verified = record(out)["verified"]
    assert verified["top1"] > 0.9
    assert 0 < verified["relative"] < 0.05
    assert set(record(out)["files"]) == {file.name for file in out.iterdir()} - {"export.json"}
    card = (out / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: fill-mask\ntags: [lmctl]\nlicense: mit\n---\n"
    )
    assert 'AutoModelForMaskedLM.from_pretrained(".")' in card
    with pytest.raises(ConfigError, match="is there already"):
        export(model, out)
    with pytest.raises(ConfigError, match="is no earlier export"):
        export(model, model, overwrite=True)


@pytest.mark.usefixtures("in_process")
def test_a_wrong_file_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, out = use_models.gpt2(tmp_path / "gpt2"), tmp_path / "out"
    right = hf._cast

    def wrong(file: Path, target: Path, subject: Subject) -> None:
        right(file, target, subject)
        foreign.reweigh(target.parent, lambda tensors: tensors["transformer.wpe.weight"].mul_(-1))

    monkeypatch.setattr(hf, "_cast", wrong)
    with pytest.raises(VerificationFailed, match="is wrong") as failure:
        export(model, out)
    assert failure.value.code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["gpt2"]
    export(model, out, verify=False)
    assert record(out)["verified"] is None


MODERNBERT: dict[str, Any] = {
    "num_hidden_layers": 5,
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
    "rope_parameters": {
        kind: {"rope_type": "default", "rope_theta": base}
        for kind, base in (("full_attention", 500.0), ("sliding_attention", 20.0))
    },
}
"""Local windows and rotations that are felt within a row of the tests."""


@pytest.mark.parametrize("dtype", ["fp32", "q8_0"])
@pytest.mark.parametrize(
    ("kind", "spread", "settings"),
    [
        ("LlamaForCausalLM", 5, {"num_key_value_heads": 1}),
        ("GPT2LMHeadModel", 1, {}),
        ("BertForMaskedLM", 5, {}),
        ("ModernBertForMaskedLM", 5, MODERNBERT),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_gguf_is_read_back_by_others(tmp_path: Path, kind: str, spread: float, settings: dict[str, Any], dtype: str):
    """With weights as far from zero as trained ones, so that positions and masks matter."""
    frame = None if "Bert" in kind else "[SEP] $A"
    model = foreign.save(tmp_path / "model", kind, frame, **settings)
    foreign.reweigh(model, lambda tensors: [value.mul_(spread) for value in tensors.values() if value.ndim == 2])
    export(model, tmp_path / "out", Gguf(), dtype=dtype)
    verified = record(tmp_path / "out")["verified"]
    if dtype == "fp32":
        assert verified["largest"] < 1e-4
    else:
        assert 1e-4 < verified["relative"] < 0.05
    (file,) = (tmp_path / "out").glob("*.gguf")
    assert file.name == f"model-{'F32' if dtype == 'fp32' else 'Q8_0'}.gguf"


def test_gguf_has_the_tokenizer(tmp_path: Path):
    subject = subject_of(str(use_models.bert(tmp_path / "bert")), Gguf(), None, None)
    (out := tmp_path / "out").mkdir()
    Gguf().write(subject, out)
    reader = gguf.GGUFReader(out / "bert-F32.gguf")
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    assert [pieces[place] for place in (0, 2, 3, 5)] == ["[PAD]", "[CLS]", "[SEP]", "a"]
    whole = json.loads(reader.fields["tokenizer.huggingface.json"].contents())
    assert whole == json.loads(subject.loaded.tokenizer.backend_tokenizer.to_str())
    assert reader.fields["bert.attention.causal"].contents() is False


def test_gguf_of_a_modernbert_says_what_llama_cpp_reads(tmp_path: Path):
    """The keys of its loader (`llama_model_modern_bert`)."""
    subject = subject_of(str(foreign.save(tmp_path / "m", "ModernBertForMaskedLM", **MODERNBERT)), Gguf(), None, None)
    (out := tmp_path / "out").mkdir()
    Gguf().write(subject, out)
    reader = gguf.GGUFReader(out / "m-F32.gguf")
    found = {name: field.contents() for name, field in reader.fields.items()}
    assert found["general.architecture"] == "modern-bert"
    assert {key: found[f"modern-bert.{key}"] for key in MODERNBERT_KEYS} == MODERNBERT_KEYS
    names = {tensor.name for tensor in reader.tensors}
    assert {"token_embd.weight", "token_embd_norm.weight", "output_norm.weight", "blk.4.attn_qkv.weight"} <= names
    assert "blk.0.attn_norm.weight" not in names
    assert not [name for name in names if name.startswith("cls")]


MODERNBERT_KEYS = {
    "attention.sliding_window": 8,
    "attention.sliding_window_pattern": 2,
    "attention.causal": False,
    "rope.freq_base": 500.0,
    "rope.freq_base_swa": 20.0,
    "rope.scaling.type": "none",
    "feed_forward_length": 64,
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"]}, "attend globally elsewhere"),
        ({"norm_bias": True}, "has no biases"),
        ({"hidden_activation": "silu"}, "computes modernbert with gelu"),
    ],
)
def test_a_modernbert_that_llama_cpp_has_not_is_refused(tmp_path: Path, settings: dict[str, Any], said: str):
    model = foreign.save(tmp_path / "m", "ModernBertForMaskedLM", **settings)
    with pytest.raises(ConfigError, match=f"{said}.*nearest: format=onnx"):
        export(model, tmp_path / "out", Gguf())


def test_rotary_pairs_become_neighbours():
    halves = torch.arange(12.0).reshape(12, 1)  # two heads of six rows: pairs are (0, 3), (1, 4), (2, 5)
    assert gguf_layout.neighbours(halves, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize("model_type", CLASSES)
def test_recurrent_code_stands_alone(tmp_path: Path, model_type: str):
    """No module that lies beside the weights imports lmctl, and all that they import of one another lie there."""
    (tmp_path / "config.json").write_text("{}")
    add_code(tmp_path, model_type)
    there = {file.stem for file in tmp_path.glob("*.py")}
    for file in tmp_path.glob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not [node.module for node in nodes if str(node.module).startswith("lmctl")], file.name
        assert {str(node.module) for node in nodes if node.level} <= there
    for classes in json.loads((tmp_path / "config.json").read_text())["auto_map"].values():
        module, _, name = classes.partition(".")
        assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()


def test_differences_are_those_of_real_positions():
    batch = {"attention_mask": np.array([[1, 1, 0]])}
    expected = np.array([[[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]]])
    found = np.array([[[0.0, 2.5], [3.0, 2.0], [99.0, 0.0]]])
    agreement = compared("x", [batch], [expected], [found])
    assert (agreement.predictions, agreement.largest, agreement.top1) == (2, 3.0, 0.5)
    assert agreement.relative == pytest.approx(np.sqrt((0.25 + 9) / 4))


def test_a_decoder_reads_nothing_but_ids_and_mask(tmp_path: Path):
    """GPT-2 adds an embedding for token types, which language models are not trained with."""

    subject = subject_of(str(use_models.gpt2(tmp_path / "gpt2")), HuggingFace(), None, None)
    batch = batch_of(subject, ["the cat", "a"], ["a", "a"], 16)
    assert set(batch) == {"input_ids", "attention_mask"}
    _, asked = bench.question(subject, batch, 0)
    ids = batch["input_ids"]
    assert asked[0].tolist() == [*ids[0, 1:], -1]
    assert asked[1].tolist() == [ids[1, 1], -1, -1]


def test_quality_is_the_mean_surprise():
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    nats = bench._nats([(({}, np.array([[1, -1]])), logits), (({}, np.array([[-1, 2]])), logits)])
    assert nats == pytest.approx(-(np.log(0.25) + np.log(0.8)) / 2)


def test_forms_are_kept_side_by_side(tmp_path: Path):
    def form(name: str, megabytes: float) -> bench.Form:
        speed = bench.Speed(1.25, 2.5, 12_345.0)
        return bench.Form(name, megabytes, {1: speed, 8: speed}, 3.25, 0.999)

    bench.save([form("as it is (torch)", 4.0), form("onnx (onnxruntime)", 4.1)], tmp_path)
    forms = bench.save([form("as it is (torch)", 5.0), form("onnx-int8_dynamic (onnxruntime)", 1.1)], tmp_path)
    assert [one.megabytes for one in forms] == [5.0, 4.1, 1.1]
    assert (tmp_path / "bench.md").read_text().count("\n") == 5
    assert max(map(len, bench.lines(forms))) <= 100


class Hub:
    """What the hub's client is asked for."""

    def __init__(self, public: bool | None) -> None:
        self.public, self.asked = public, []

    def __call__(self) -> Hub:
        return self

    def repo_exists(self, repository: str) -> bool:
        return self.public is not None

    def repo_info(self, repository: str) -> Any:
        return type("Info", (), {"private": not self.public})

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        self.asked.append((repository, private))

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.asked.append((repo_id, folder_path))


def test_an_upload_is_private_and_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="cannot be reached from here"):
        push.check("me/mine", private=True)
    monkeypatch.setattr(push, "hub_is_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="nobody is logged in"):
        push.check("me/mine", private=True)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "x")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub(public=True))
    with pytest.raises(ConfigError, match="everybody can see it"):
        push.check("me/mine", private=True)
    push.check("me/mine", private=False)
    hub = Hub(public=None)
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    push.check("me/mine", private=True)
    assert push.push(tmp_path, "me/mine", private=True) == "https://huggingface.co/me/mine"
    assert hub.asked == [("me/mine", True), ("me/mine", tmp_path)]
