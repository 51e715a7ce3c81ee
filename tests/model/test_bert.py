"""Our sparse heads and narrowed last layer compute exactly what transformers' BERT for pre-training computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compared import same_gradients
from small import learner_of, prepared, vocabulary
from transformers import BertForMaskedLM, BertForPreTraining

from lmctl.core.counter_rng import CounterRng
from lmctl.model.bert import Bert
from lmctl.objective.base import Material
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence

SIZE = Bert(3, 32, 4, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)


@pytest.mark.parametrize(
    ("objective", "kind"), [(MaskedLM(), BertForMaskedLM), (MaskedLMAndNextSentence(), BertForPreTraining)]
)
def test_loss_and_gradients_equal_transformers(objective, kind):
    torch.manual_seed(0)
    text = prepared().corpora["corpus"].train
    network = SIZE.load(vocabulary(), objective.heads("corpus", text, vocabulary()))
    assert type(network.model) is kind
    examples = objective.examples(Material("corpus", text, vocabulary(), "encoder", 48))
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
    network = Bert(1, 32, 2, 64, pad_vocabulary_to=64).load(vocabulary(), {"mlm": vocabulary().size})
    assert network.model.config.vocab_size == 128
