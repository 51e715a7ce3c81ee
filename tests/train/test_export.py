"""The exported tokenizer frames texts as training did: plain transformers adds the same special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import SUMMARY, vocabulary
from small_tasks import small_task
from transformers import AutoTokenizer
from use_models import opened

from lmctl.core.paths import Paths
from lmctl.inference.decode import complete
from lmctl.model.gpt2 import Gpt2
from lmctl.model.llama import Llama
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.model.t5 import T5
from lmctl.model.transformer_mt import TransformerMT
from lmctl.parallel.processes import Processes
from lmctl.train.export import export
from lmctl.train.trainer import Trainer

SEP = vocabulary().sep


def exported(task: str, model: Any, folder: Path) -> Path:
    plan, text = small_task(task, model=model)
    export(Paths(folder), Trainer(plan, text, Processes(on_cpu=True)), SUMMARY)
    return folder / "model"


@pytest.mark.parametrize("model", [Gpt2(1, 16, 2), Llama(1, 16, 2, 1, 32), RecurrentLM(1, 16)])
def test_a_language_models_prompt_begins_behind_an_end_and_is_not_closed(tmp_path, model):
    """[SEP] w1 w2: what ends a document begins the next one."""
    folder = exported("clm", model, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = tokenizer.convert_tokens_to_ids(["w1", "w2"])
    assert tokenizer("w1 w2") == {"input_ids": [SEP, *pieces], "attention_mask": [1, 1, 1]}
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (SEP, SEP)
    loaded = opened(folder)
    assert loaded.prompt("w1 w2") == [SEP, *pieces]
    [text] = complete(loaded, ["w1 w2"], 1, 5)
    assert text.startswith("w1 w2")


@pytest.mark.parametrize("model", [TransformerMT(1, 1, 16, 2, 32), RecurrentMT(1, 1, 16, 16), T5(1, 1, 16, 2, 32)])
def test_an_encoder_decoder_reads_texts_that_end(tmp_path, model):
    """w1 w2 [SEP], and nothing before it."""
    folder = exported("translate", model, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = tokenizer.convert_tokens_to_ids(["w1", "w2"])
    assert tokenizer("w1 w2") == {"input_ids": [*pieces, SEP], "attention_mask": [1, 1, 1]}
    assert tokenizer.eos_token_id == SEP
    assert opened(folder).family == "seq2seq"
