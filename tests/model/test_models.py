"""Every family computes what plain transformers computes, reads heads only where asked, and loads again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compared import padded, same_gradients
from small import learner_of, prepared, vocabulary
from transformers import AutoModelForSequenceClassification, BertForMaskedLM, BertForPreTraining

from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.llama import Llama
from lmctl.model.modernbert import ModernBert
from lmctl.model.pretrained import Pretrained
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.recurrent_classifier import BiLSTM
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.model.t5 import T5
from lmctl.model.transformer_mt import TransformerMT
from lmctl.objective.base import Material
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence

V = vocabulary()
BERT = Bert(2, 32, 2, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)
MODERN = ModernBert(3, 32, 2, 48, max_positions=64, local_window=8)
GPT2 = Gpt2(2, 32, 2, max_positions=64, dropout=0.0, attention_dropout=0.0)
LLAMA = Llama(2, 32, 4, 2, 64, max_positions=64)
T5_SMALL = T5(2, 2, 32, 2, 64, dropout=0.0)
MT = TransformerMT(2, 2, 32, 2, 64, max_positions=64, dropout=0.0)
RECURRENT = [RecurrentLM(1, 16), BiLSTM(2, 8, 12), RecurrentMT(2, 2, 8, 6)]
DECODERS = pytest.mark.parametrize("spec", [GPT2, LLAMA], ids=["gpt2", "llama"])
SEQ2SEQ = pytest.mark.parametrize(
    "spec", [T5_SMALL, T5(2, 1, 32, 2, 64, 0.0, False, False), MT], ids=["t5", "t5v1", "mt"]
)


def ids(rows: int, length: int) -> torch.Tensor:
    return padded([length] * rows)[0]


@DECODERS
def test_decoders_have_transformers_loss_and_gradients(spec):
    network = spec.load(V, {"lm": V.size}).train()
    tokens, mask = padded([20, 13])
    real = mask[:, 1:].reshape(-1).nonzero().flatten()
    inputs = {"input_ids": tokens[:, :-1], "attention_mask": mask[:, :-1]}
    logits = network.head("lm", network.encode(inputs, real))
    ours = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1)[real])
    labels = torch.where(mask, tokens, -100)
    theirs = network.pretrained()(input_ids=tokens, attention_mask=mask.long(), labels=labels).loss
    same_gradients(network, ours, theirs)


@DECODERS
def test_documents_in_one_row_do_not_see_each_other(spec):
    from lmctl.objective.clm import separate

    network = spec.load(V, {"lm": V.size}).eval()
    tokens = ids(1, 24)
    tokens[0, [9, 17]] = V.sep
    begins = (tokens == V.sep).numpy()
    documents, positions = (torch.from_numpy(part) for part in separate(begins, begins | True))
    everywhere = torch.arange(24)

    def states(row: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": row, "documents": documents, "position_ids": positions}
        return network.encode(inputs, everywhere)

    before, changed = states(tokens), tokens.clone()
    changed[0, 10:17] = (changed[0, 10:17] - 4) % 60 + 5
    after = states(changed)
    outside = torch.tensor([*range(10), *range(17, 24)])
    assert torch.allclose(before[outside], after[outside], atol=1e-6)
    assert (before[10:17] - after[10:17]).abs().max() > 1e-2
    alone = network.encode({"input_ids": tokens[:, 9:17]}, torch.arange(8))
    assert torch.allclose(before[9:17], alone, atol=1e-5)


@SEQ2SEQ
def test_encoder_decoders_have_transformers_loss_and_gradients(spec):
    network = spec.load(V, {"lm": V.size}).train()
    source, source_mask = padded([11, 7, 9])
    target, target_mask = padded([8, 12, 5])
    real = target_mask.reshape(-1).nonzero().flatten()
    shifted = torch.cat([torch.full((3, 1), V.pad), target[:, :-1]], dim=1)
    inputs = {"input_ids": source, "attention_mask": source_mask, "decoder_input_ids": shifted}
    inputs["decoder_attention_mask"] = target_mask
    logits = network.head("lm", network.encode(inputs, real))
    ours = torch.nn.functional.cross_entropy(logits, target.reshape(-1)[real])
    labels = torch.where(target_mask, target, -100)
    theirs = network.pretrained()(input_ids=source, attention_mask=source_mask.long(), labels=labels).loss
    same_gradients(network, ours, theirs)


@pytest.mark.parametrize(
    ("objective", "kind"), [(MaskedLM(), BertForMaskedLM), (MaskedLMAndNextSentence(), BertForPreTraining)]
)
def test_bert_has_transformers_loss_and_gradients(objective, kind):
    torch.manual_seed(0)
    text = prepared().corpora["corpus"].train
    network = BERT.load(V, objective.heads("corpus", text, V))
    assert type(network.model) is kind
    examples = objective.examples(Material("corpus", text, V, "encoder", 48))
    batch = examples.collate(np.arange(6), np.zeros(6, dtype=int), CounterRng(0, "test"))
    assert ("attention_mask" in batch.inputs) == ("nsp" in batch.targets)  # the padded case is the harder one
    terms, counts = learner_of(network, objective).task_losses(batch), batch.counts()
    means = {name: loss / counts[name] for name, loss in terms.items()}

    labels = torch.full_like(batch.inputs["input_ids"], -100)
    labels.view(-1)[batch.targets["mlm"].positions] = batch.targets["mlm"].labels
    inputs = {name: value.long() for name, value in batch.inputs.items()} | {"labels": labels}
    if "nsp" in means:
        inputs["next_sentence_label"] = batch.targets["nsp"].labels
    theirs = network.model(**inputs)
    same_gradients(network.model, sum(means.values()), theirs.loss, atol=2e-7)
    assert sum(means.values()).item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    if "nsp" in means:
        nsp = torch.nn.functional.cross_entropy(theirs.seq_relationship_logits, batch.targets["nsp"].labels)
        assert means["nsp"].item() == pytest.approx(nsp.item(), rel=1e-6)


def test_embedding_rows_are_rounded_up():
    network = Bert(1, 32, 2, 64, pad_vocabulary_to=64).load(V, {"mlm": V.size})
    assert network.model.config.vocab_size == 128


@pytest.mark.parametrize("every", [1, 5])
def test_modernbert_has_transformers_loss_and_gradients(every: int):
    """Its last layer's feed-forward half sees the positions that are read, and no others."""
    network = MODERN.load(V, {"mlm": V.size})
    tokens, mask = padded([20, 13])
    read, seen = mask.reshape(-1).nonzero().flatten()[::every], []
    hook = network.model.model.layers[-1].mlp.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    ours = network.head("mlm", network.encode({"input_ids": tokens, "attention_mask": mask}, read))
    hook.remove()
    assert seen == [(len(read), 32)]
    theirs = network.pretrained()(input_ids=tokens, attention_mask=mask).logits.reshape(-1, V.size)[read]
    assert torch.allclose(ours, theirs, atol=1e-5)
    labels = tokens.reshape(-1)[read]
    same_gradients(network, *(torch.nn.functional.cross_entropy(logits, labels) for logits in (ours, theirs)))


@pytest.mark.parametrize("spec", [BERT, MODERN, GPT2, LLAMA], ids=["bert", "modernbert", "gpt2", "llama"])
def test_a_classifier_is_transformers_classifier_and_loads_as_one(spec, tmp_path: Path):
    network = spec.load(V, {"topics": 3}).eval()
    tokens, mask = padded([20, 13, 17])
    inputs = {"input_ids": tokens, "attention_mask": mask}
    ours = network.head("topics", network.encode(inputs, None))
    network.pretrained().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    theirs = loaded(input_ids=tokens, attention_mask=mask.long()).logits
    assert ours.shape == (3, 3)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("spec", [BERT, MODERN, GPT2, LLAMA], ids=["bert", "modernbert", "gpt2", "llama"])
def test_a_classifier_beside_a_language_model_head(spec):
    language = "mlm" if spec.family == "encoder" else "lm"
    network = spec.load(V, {language: V.size, "topics": 3, "stars": 1}).eval()
    tokens, mask = padded([20, 13])
    summary = network.encode({"input_ids": tokens, "attention_mask": mask}, None)
    assert network.head("topics", summary).shape == (2, 3)
    assert network.head("stars", summary).shape == (2, 1)
    alone = network.encode({"input_ids": tokens[1:, :13]}, None)
    assert torch.allclose(summary[1:], alone, atol=1e-5)  # padding has no say
    saved = network.extra_heads()
    assert set(saved) == {"topics.weight", "topics.bias", "stars.weight", "stars.bias"}
    other = spec.load(V, {language: V.size, "topics": 3}).eval()
    assert other.load_extra_heads(saved) == ["topics"]
    assert torch.equal(other.head("topics", summary), network.head("topics", summary))


@pytest.mark.parametrize("spec", [BERT, MODERN, GPT2, LLAMA, T5_SMALL, MT, *RECURRENT], ids=lambda s: type(s).__name__)
def test_layers_name_every_parameter_once_from_the_embeddings_up(spec):
    language = "mlm" if spec.family == "encoder" else "lm"
    network = spec.load(V, {"topics": 3} if isinstance(spec, BiLSTM) else {language: V.size})
    layers = network.layers()
    found = [id(p) for layer in layers for p in layer]
    assert sorted(found) == sorted(id(p) for p in network.parameters())
    assert any(p is network.model.get_input_embeddings().weight for p in layers[0])
    assert spec.layers + 1 <= len(layers) <= spec.layers + 2


@pytest.mark.parametrize(
    ("spec", "heads", "message"),
    [
        (T5_SMALL, {"topics": 3}, "classifiers need an encoder or a decoder"),
        (RecurrentMT(1, 1, 8, 6), {"topics": 3}, "classifiers need an encoder or a decoder"),
        (RecurrentLM(1, 16), {"topics": 2}, "classifies only beside predicting text"),
    ],
)
def test_heads_are_refused_where_there_is_no_place(spec, heads, message):
    with pytest.raises(ConfigError, match=message):
        spec.load(V, heads)


@pytest.mark.parametrize("spec", RECURRENT, ids=lambda spec: type(spec).__name__)
def test_recurrent_networks_are_not_recomputed_nor_loops_compiled(spec):
    network = spec.load(V, {"topics": 3} if isinstance(spec, BiLSTM) else {"lm": V.size})
    with pytest.raises(ConfigError, match="gradient_checkpointing is for Transformers"):
        network.checkpoint_activations()
    if isinstance(spec, RecurrentMT):
        with pytest.raises(ConfigError, match="compile is of no use here"):
            network.compile_body()


@pytest.mark.parametrize("spec", [BERT, GPT2], ids=["bert", "gpt2"])
def test_a_pretrained_trunk_gets_a_new_classifier(spec, tmp_path: Path):
    language = {"mlm": V.size, "pair": 2} if spec is BERT else {"lm": V.size}
    first = spec.load(V, language).eval()
    first.pretrained().save_pretrained(tmp_path)
    tuned = Pretrained(str(tmp_path))
    assert tuned.family == spec.family
    assert tuned.max_positions == 64
    network = tuned.load(V, {"topics": 3}).eval()
    tokens = {"input_ids": ids(2, 12)}
    assert torch.allclose(network.encode(tokens, None), first.encode(tokens, None), atol=1e-6)
    assert network.report[0].startswith("loaded ")
    assert any(line.startswith("new: ") and ("classifier" in line or "score" in line) for line in network.report)
    assert len(network.report) == (3 if spec is BERT else 2)  # BERT leaves its language model head behind


def test_a_frozen_trunk_learns_nothing_and_lora_learns_little(tmp_path: Path):
    BERT.load(V, {"mlm": V.size, "pair": 2}).pretrained().save_pretrained(tmp_path)
    frozen = Pretrained(str(tmp_path), freeze=-1).load(V, {"topics": 3})
    assert [n for n, p in frozen.named_parameters() if p.requires_grad] == [
        "model.classifier.weight",
        "model.classifier.bias",
    ]
    network = Pretrained(str(tmp_path), lora_rank=2).load(V, {"topics": 3})
    learning = [n for n, p in network.named_parameters() if p.requires_grad]
    assert any("lora_A" in name for name in learning)
    assert any("classifier" in name for name in learning)
    assert all("lora" in name or "classifier" in name for name in learning)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    network.eval()
    tokens = ids(2, 12)
    ours = network.head("topics", network.encode({"input_ids": tokens}, None))
    merged = network.pretrained().eval()
    assert not any("lora" in name for name in merged.state_dict())
    assert torch.allclose(merged(input_ids=tokens).logits, ours, atol=1e-5)


def test_checkpointed_activations_change_nothing():
    for spec, inputs in (
        (BERT, {"input_ids": ids(2, 12)}),
        (MODERN, {"input_ids": ids(2, 12)}),
        (GPT2, {"input_ids": ids(2, 12)}),
        (MT, {"input_ids": ids(2, 12), "decoder_input_ids": ids(2, 9)}),
    ):
        network = spec.load(V, {"mlm" if spec in (BERT, MODERN) else "lm": V.size}).train()
        losses = []
        for _ in range(2):
            losses.append(network.encode(inputs, torch.arange(5)).pow(2).mean())
            network.checkpoint_activations()
        same_gradients(network, *losses)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gpt2(0, 32, 2), "layers must be at least 1"),
        (lambda: Gpt2(2, 33, 2), "hidden must be a multiple of heads"),
        (lambda: Llama(2, 32, 4, 3, 64), "multiple of key_value_heads"),
        (lambda: T5(2, 2, 32, 2, 64, dropout=1.0), "dropout is a probability"),
        (lambda: Pretrained("x", freeze=-2), "freeze is a number of layers"),
        (lambda: RecurrentLM(1, 16, "rnn"), "cell must be lstm or gru"),
        (lambda: BiLSTM(0, 8, 8), "layers must be at least 1"),
        (lambda: BiLSTM(1, 8, 0), "embedding must be at least 1"),
        (lambda: BiLSTM(1, 8, 8, "rnn"), "cell must be lstm or gru"),
        (lambda: BiLSTM(1, 8, 8, pooling="sum"), "pooling must be one of max, mean, last"),
        (lambda: BiLSTM(1, 8, 8, dropout=1.0), "dropout is a probability"),
        (lambda: RecurrentMT(1, 0, 8, 6), "decoder_layers must be at least 1"),
        (lambda: RecurrentMT(1, 1, 8, 0), "embedding must be at least 1"),
        (lambda: RecurrentMT(1, 1, 8, 6, "rnn"), "cell must be lstm or gru"),
        (lambda: RecurrentMT(1, 1, 8, 6, attention="dot"), "attention must be bahdanau or luong"),
        (lambda: RecurrentMT(1, 1, 8, 6, dropout=-0.1), "dropout is a probability"),
    ],
)
def test_sizes_that_cannot_be(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
