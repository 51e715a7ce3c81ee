"""The key `model.attention`: lmctl's attention function on a CPU against torch's, masks of documents, and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small import vocabulary
from torch import Tensor
from transformers.masking_utils import sdpa_mask

from lmctl.core.errors import ConfigError
from lmctl.kernels import backend
from lmctl.model import attention_function
from lmctl.model.attention import Attending
from lmctl.model.attention_function import document_inputs, document_mask_function, spans_of
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.llama import Llama
from lmctl.model.modernbert import ModernBert
from lmctl.model.transformer_mt import TransformerMT

LENGTH = 70
DOCUMENTS = torch.tensor([[0] * 30 + [1] * 25 + [2] * 15, [0] * 9 + [1] * 50 + [-1] * 11])
POSITIONS = torch.tensor([[*range(30), *range(25), *range(15)], [*range(9), *range(50), *range(11)]])
REAL = torch.arange(LENGTH) < torch.tensor([[LENGTH], [45]])
SIZES: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 4}
GPT = Gpt2(**SIZES, dropout=0.0, attention_dropout=0.0)
LLAMA = Llama(**SIZES, key_value_heads=2, feed_forward=48)
MODERN = ModernBert(**SIZES | {"layers": 3}, feed_forward=48, local_window=16)
BERT = Bert(**SIZES, feed_forward=48, dropout=0.0)
MT = TransformerMT(**SIZES, decoder_layers=2, feed_forward=48, dropout=0.0, attention_dropout=0.2)


def network(spec: Attending) -> Any:
    torch.manual_seed(0)
    return spec.load(vocabulary(), {"lm" if spec.family != "encoder" else "mlm": vocabulary().size}).train()


def inputs(**others: Tensor) -> dict[str, Tensor]:
    ids = torch.randint(5, vocabulary().size, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "decoder_input_ids": ids[:, :20], **others}


def states(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """The states of both rows' first 20 positions, which are no padding in any of these batches."""
    length = 20 if net.model.config.is_encoder_decoder else LENGTH
    read: Tensor = net.encode(batch, torch.cat([torch.arange(20), torch.arange(length, length + 20)]))
    return read


@pytest.mark.parametrize(
    ("spec", "batch"),
    [
        pytest.param(GPT, inputs(documents=DOCUMENTS, position_ids=POSITIONS), id="gpt2-documents"),
        pytest.param(LLAMA, inputs(documents=DOCUMENTS, position_ids=POSITIONS), id="grouped-queries-documents"),
        pytest.param(MODERN, inputs(attention_mask=REAL), id="modernbert-local"),
    ],
)
def test_spans_give_what_a_dense_mask_gives(spec: Attending, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch):
    """Forward and backward, with spans computed even where all that they leave out is too little to gain by it."""
    monkeypatch.setattr(attention_function, "SPARSE", 2.0)
    first, second = network(replace(spec, attention="tiled")), network(replace(spec, attention="sdpa"))
    expected = states(second, batch)
    computed: list[Tensor] = []
    kernel = attention_function.attention
    monkeypatch.setattr(attention_function, "attention", lambda *a: computed.append(a[3]) or kernel(*a))
    found = states(first, batch)
    assert len(computed) >= 2
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(x.square().sum(), list(n.model.parameters()), allow_unused=True)
                 for x, n in ((found, first), (expected, second))]  # fmt: skip
    for one, other in zip(*gradients, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, atol=1e-4 * float(max(1, other.abs().max())), rtol=1e-3)


@pytest.mark.parametrize("spec", [BERT, MT, replace(GPT, attention_dropout=0.2)])
def test_dropout_in_training_has_the_mean_of_none(spec: Attending):
    """Of padded rows, in encoders, decoders and the attention of one to the other; evaluation is torch's to the bit."""
    batch = inputs(attention_mask=REAL)
    net = network(replace(spec, attention="tiled"))
    with torch.no_grad():
        plain = states(net.eval(), batch)
        assert torch.equal(plain, states(network(replace(spec, attention="sdpa")).eval(), batch))
        net.train()
        torch.manual_seed(0)
        drawn = torch.stack([states(net, batch) for _ in range(60)])
    assert float(drawn.std(0).mean()) > 1e-4
    assert float((drawn.mean(0) - plain).abs().mean()) < 0.35 * float((drawn[0] - plain).abs().mean())


def test_padding_has_no_influence_in_training():
    batch = inputs(attention_mask=REAL)
    other = batch | {"input_ids": torch.where(REAL, batch["input_ids"], 4)}
    net, found = network(replace(BERT, attention="tiled")), []
    for rows in (batch, other):
        torch.manual_seed(5)
        found.append(states(net, rows))
    assert torch.equal(*found)


def test_masks_of_documents_are_one_in_all_forms():
    """Spans, a dense mask, and the lengths for flash attention, in which each position of padding is a document."""
    expected = (DOCUMENTS[:, :, None] == DOCUMENTS[:, None]) & (DOCUMENTS >= 0)[:, None]
    expected = (expected.tril() | torch.eye(LENGTH, dtype=torch.bool))[:, None]
    sees = document_mask_function(DOCUMENTS)
    assert torch.equal(sdpa_mask(2, LENGTH, LENGTH, mask_function=sees, allow_is_causal_skip=False), expected)
    nets = {name: network(replace(LLAMA, attention=name)) for name in ("tiled", "sdpa", "flex_attention")}
    assert nets["flex_attention"].model.config._attn_implementation == "flex_attention"
    dense, spans = (document_inputs(DOCUMENTS, nets[name].model)["attention_mask"] for name in ("sdpa", "tiled"))
    assert torch.equal(dense, expected)
    assert torch.equal(spans, spans_of(expected))
    nets["sdpa"].model.config._attn_implementation = "flash_attention_2"
    lengths = document_inputs(DOCUMENTS, nets["sdpa"].model)
    assert lengths["cu_seq_lens_q"].diff().tolist() == [30, 25, 15, 9, 50, *[1] * 11]
    assert (lengths["attention_mask"], lengths["max_length_k"]) == (None, 50)


def test_a_mask_with_gaps_is_no_span():
    assert spans_of(torch.tensor([[[[True, False, True]]]])) is None


def test_what_cannot_be_had_is_refused_in_words():
    with pytest.raises(ValueError, match="attention must be one of auto, sdpa, tiled, flex_attention, fl"):
        replace(GPT, attention="flash")
    with pytest.raises(ConfigError, match="flex_attention has no dropout, and the model's attn_pdrop"):
        network(replace(GPT, attention_dropout=0.1, attention="flex_attention"))
    with pytest.raises(ConfigError, match="flash_attention_2"):  # the library is not installed
        network(replace(GPT, attention="flash_attention_2"))
    for name in ("flex_attention", "flash_attention_2"):
        assert "trains on GPUs only" in (replace(GPT, attention=name).refuse(torch.device("cpu")) or "")
    assert GPT.refuse(torch.device("cpu")) is None


def test_plain_and_compiled_kernels_give_the_same_bits():
    """Forward and backward, dropout's noise included."""
    try:
        for spec, batch in ((BERT, inputs(attention_mask=REAL)), (GPT, inputs(documents=DOCUMENTS))):
            found = []
            for compiled in (False, True):
                backend.use_compiled(compiled)
                net = network(replace(spec, attention="tiled", attention_dropout=0.1))
                torch.manual_seed(7)
                x = states(net, batch)
                found.append((x, torch.autograd.grad(x.square().sum(), net.word_embeddings().weight)[0]))
            assert torch.equal(found[0][0], found[1][0])
            assert torch.equal(found[0][1], found[1][1])
    finally:
        backend.use_compiled(True)
