"""llama.cpp itself, as its Python bindings bring it, reads the files of `format=gguf` (pip install xllamacpp)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch
from command import HELPERS, ROOT, write_documents
from in_process import succeed
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="there is no llama.cpp here: pip install xllamacpp"),
]

TEXTS = ("The old sailor likes music.", "In 1969, two   people's 100 % 人工智能 été")
NEAR = 5e-3
"""llama.cpp computes GELU by a table in half precision."""
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
SMALL = ["data=text", "data.path=docs.txt", "tokenizer.vocab_size=400", "batch.seq_len=32", "budget.steps=1"]
KINDS = {
    "gpt2": ["mix=clm", "model=gpt2_tiny", "tokenizer=bpe"],
    "llama": ["mix=clm", "model=llama_tiny", "tokenizer=bpe"],
    "bert": ["mix=mlm", "model=bert_tiny"],
    "modernbert": ["mix=mlm", "model=modernbert_tiny"],
}


@contextmanager
def llama_cpp(*words: str) -> Iterator[Any]:
    """The function that asks a server of llama.cpp with one model."""
    script = [sys.executable, str(HELPERS / "llama_server.py"), *words]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = next((line for line in iter(process.stdout.readline, b"") if line.startswith(b"http")), b"").decode()

        def ask(path: str, **question: Any) -> Any:
            headers = {"Content-Type": "application/json"}
            asked = urllib.request.Request(f"{address.strip()}/{path}", json.dumps(question).encode(), headers)
            with urllib.request.urlopen(asked) as answer:
                return json.load(answer)

        try:
            yield ask
        finally:
            process.stdin.close()


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_computes_the_same(kind: str, tmp_path: Path):
    """Pieces of a text, and log-probabilities of what follows, or hidden states; with weights as far from zero as
    trained ones."""
    write_documents(tmp_path / "docs.txt")
    succeed("train", "name=x", *KINDS[kind], *SMALL, cwd=tmp_path)
    model = foreign.copied(tmp_path / "runs/x/model", tmp_path / "x")
    foreign.reweigh(model, lambda tensors: [value.mul_(3) for value in tensors.values() if value.ndim == 2])
    succeed("export", "x", "format=gguf", "out=out", "verify=false", cwd=tmp_path)
    tokenizer, embeds = AutoTokenizer.from_pretrained(model), "bert" in kind
    network = (AutoModel if embeds else AutoModelForCausalLM).from_pretrained(model).eval()
    with llama_cpp(str(tmp_path / "out/x-F32.gguf"), *(["embed"] if embeds else [])) as ask:
        for text in TEXTS:
            ids = tokenizer(text)["input_ids"]
            typed = text if embeds else f" {text}"  # byte-level BPE was trained with a space before a text
            assert ask("tokenize", content=typed, add_special=True)["tokens"] == ids
            with torch.inference_mode():
                expected = network(torch.tensor([ids]))
            if embeds:
                (found,) = ask("embedding", content=typed, embd_normalize=-1)
                assert np.abs(np.array(found["embedding"]) - expected.last_hidden_state[0].numpy()).max() < NEAR
                continue
            nats = expected.logits[0, -1].log_softmax(-1)
            answer = ask("completion", prompt=ids, n_predict=1, temperature=0, n_probs=len(nats))
            likeliest = answer["completion_probabilities"][0]["top_logprobs"]
            assert len(likeliest) == len(nats)
            assert max(abs(one["logprob"] - float(nats[one["id"]])) for one in likeliest) < NEAR


def test_a_writer_is_served_in_ten_lines(tmp_path: Path):
    """As docs/export.md says."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "xllamacpp" in code)
    write_documents(tmp_path / "docs.txt")
    succeed("train", "name=writer", *KINDS["gpt2"], *SMALL, cwd=tmp_path)
    succeed("export", "runs/writer", "format=gguf", "dtype=q8_0", "verify=false", cwd=tmp_path)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
