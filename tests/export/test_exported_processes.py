"""ONNX and recurrent networks, written by real commands and read back by processes of their own."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
import transformers
import use_models
from command import ROOT, environment, succeed, write_documents

from lmctl.model.rnn import classifier, language_model, seq2seq

IDS = {"pad_token_id": 0, "eos_token_id": 3}


def recurrent(folder: Path, kind: str, **settings: Any) -> Path:
    """A random recurrent model, and its tokenizer."""
    torch.manual_seed(0)
    module, config, model, frame = {
        "lm": (language_model, "RecurrentLMConfig", "RecurrentLMForCausalLM", "[SEP] $A"),
        "classifier": (classifier, "RecurrentClassifierConfig", "RecurrentForSequenceClassification", None),
        "mt": (seq2seq, "RecurrentSeq2SeqConfig", "RecurrentForConditionalGeneration", "$A [SEP]"),
    }[kind]
    made = vars(module)[config](use_models.SIZE, hidden_size=32, **settings)
    return use_models.save(folder, vars(module)[model](made), frame)


MODELS: dict[str, Any] = {
    "bert": lambda place: use_models.bert(place),
    "bert for pairs": lambda place: use_models.bert(place, "BertForPreTraining"),
    "classifier": lambda place: use_models.bert(place, "BertForSequenceClassification", num_labels=3),
    "modernbert": lambda place: foreign.save(place, "ModernBertForMaskedLM"),
    "gpt2": lambda place: use_models.gpt2(place),
    "llama": lambda place: foreign.save(place, "LlamaForCausalLM", "[SEP] $A", num_key_value_heads=1),
    "marian": lambda place: use_models.marian(place),
    "t5": lambda place: foreign.save(place, "T5ForConditionalGeneration", "$A [SEP]"),
    "lstm": lambda place: recurrent(place, "lm", cell="lstm", **IDS),
    "gru": lambda place: recurrent(place, "lm", cell="gru", **IDS),
    "bilstm": lambda place: recurrent(place, "classifier", embedding_size=16, num_labels=3, **IDS),
}
RECURRENT = {
    "lstm": MODELS["lstm"],
    "bilstm": MODELS["bilstm"],
    **{
        attention: lambda place, attention=attention: recurrent(
            place, "mt", embedding_size=16, attention=attention, decoder_start_token_id=3, **IDS
        )
        for attention in ("bahdanau", "luong")
    },
}


def verified(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "export.json").read_text())["verified"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_computes_the_same(name: str, tmp_path: Path):
    """In batches and lengths that the exporter has not seen, some rows padded."""
    MODELS[name](tmp_path / "model")
    succeed("export", "model", "format=onnx", "out=out", cwd=tmp_path)
    assert verified(tmp_path / "out")["runtime"].startswith("onnxruntime")
    assert verified(tmp_path / "out")["largest"] < 1e-4
    assert verified(tmp_path / "out")["top1"] == 1.0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("quantize", ["int8_dynamic", "int8_weight_only"])
def test_int8_graphs_are_close_and_smaller(quantize: str, tmp_path: Path):
    width = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_hidden_layers": 2}
    network = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=use_models.SIZE, **width))
    use_models.save(tmp_path / "model", network)
    sizes = {}
    for name, words in {"float": (), "int8": (f"quantize={quantize}",)}.items():
        succeed("export", "model", "format=onnx", f"out={name}", *words, cwd=tmp_path)
        sizes[name] = (tmp_path / name / "model.onnx").stat().st_size
    assert 0.2 < sizes["int8"] / sizes["float"] < 0.6
    assert 0 < verified(tmp_path / "int8")["relative"] < 0.2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RECURRENT)
def test_plain_transformers_reads_recurrent_networks(name: str, tmp_path: Path):
    """In a process that cannot import lmctl's models, with the code beside the weights; lmctl without that."""
    RECURRENT[name](tmp_path / "model")
    succeed("export", "model", "out=out", cwd=tmp_path)
    assert verified(tmp_path / "out")["largest"] == 0
    assert use_models.opened(tmp_path / "out").model.num_parameters() > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_student_is_served_in_ten_lines(tmp_path: Path):
    """As docs/export.md says, where lmctl cannot be imported, and from ONNX neither torch nor transformers."""
    write_documents(tmp_path / "docs.txt")
    small = ["data=text", "data.path=docs.txt", "tokenizer.vocab_size=300", "batch.seq_len=32", "budget.steps=3"]
    succeed("train", "name=student", "mix=mlm", "model=bert_tiny", "model.layers=1", *small, cwd=tmp_path)
    succeed("export", "runs/student", "format=onnx", "bench=true", cwd=tmp_path)
    folder = tmp_path / "runs" / "student" / "export"
    assert {"Training", "Figures", "Limits"} <= set(
        re.findall(r"^## (.+)$", (folder / "onnx" / "README.md").read_text(), re.M)
    )
    assert "onnx (onnxruntime)" in json.loads((folder / "bench.json").read_text())
    assert len(served("onnxruntime", tmp_path, "lmctl", "torch", "transformers").split()) >= 5
    succeed("export", "runs/student", "verify=false", cwd=tmp_path)
    assert len(ast.literal_eval(served("pipeline", tmp_path, "lmctl"))) == 5


def served(library: str, folder: Path, *blocked: str) -> str:
    """What the page's lines for a library print in `folder`, where the `blocked` modules cannot be imported."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if library in code)
    assert len(code.strip().splitlines()) <= 10
    code = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n{code}"
    around = environment(folder)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=around, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
