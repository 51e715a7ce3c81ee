"""Our sparse heads and narrowed last layer compute exactly what transformers' BertForPreTraining computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import learner_of, prepared, vocabulary
from transformers import BertForMaskedLM

from lmctl.core.counter_rng import CounterRng
from lmctl.model.bert import Bert
from lmctl.objective.base import Material
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence

SIZE = Bert(3, 32, 4, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)


def batch_of(objective, rows: int = 6):
    examples = objective.examples(Material("corpus", prepared().corpora["corpus"].train, vocabulary(), "encoder", 48))
    return examples.collate(np.arange(rows), np.zeros(rows, dtype=int), CounterRng(0, "test"))


def heads_of(objective) -> dict[str, int]:
    return objective.heads("corpus", prepared().corpora["corpus"].train, vocabulary())


def dense_labels(batch, term: str) -> torch.Tensor:
    labels = torch.full_like(batch.inputs["input_ids"], -100).view(-1)
    labels[batch.targets[term].positions] = batch.targets[term].labels
    return labels.view_as(batch.inputs["input_ids"])


def reference_inputs(batch) -> dict:
    inputs = dict(batch.inputs)
    if "attention_mask" in inputs:
        inputs["attention_mask"] = inputs["attention_mask"].long()
    return inputs


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_same_gradients(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=2e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_pretraining_loss_and_gradients_equal_transformers():
    torch.manual_seed(0)
    objective = MaskedLMAndNextSentence()
    network = SIZE.load(vocabulary(), heads_of(objective))
    batch = batch_of(objective)
    assert "attention_mask" in batch.inputs  # the padded case is the harder one

    terms, counts = learner_of(network, objective).task_losses(batch), batch.counts()
    ours = terms["mlm"] / counts["mlm"] + terms["nsp"] / counts["nsp"]
    ours.backward()
    our_gradients = gradients(network.model)

    theirs = network.model(
        **reference_inputs(batch),
        labels=dense_labels(batch, "mlm"),
        next_sentence_label=batch.targets["nsp"].labels,
    )
    theirs.loss.backward()
    assert ours.item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    assert_same_gradients(our_gradients, gradients(network.model))

    logits = theirs.prediction_logits.reshape(-1, theirs.prediction_logits.shape[-1])
    nsp = torch.nn.functional.cross_entropy(theirs.seq_relationship_logits, batch.targets["nsp"].labels)
    mlm = torch.nn.functional.cross_entropy(logits, dense_labels(batch, "mlm").view(-1))
    assert terms["nsp"].item() / counts["nsp"] == pytest.approx(nsp.item(), rel=1e-6)
    assert terms["mlm"].item() / counts["mlm"] == pytest.approx(mlm.item(), rel=1e-6)


def test_masked_lm_loss_and_gradients_equal_transformers():
    torch.manual_seed(0)
    objective = MaskedLM()
    network = SIZE.load(vocabulary(), heads_of(objective))
    assert isinstance(network.model, BertForMaskedLM)
    batch = batch_of(objective)
    ours = learner_of(network, objective).task_losses(batch)["mlm"] / batch.counts()["mlm"]
    ours.backward()
    our_gradients = gradients(network.model)
    theirs = network.model(**reference_inputs(batch), labels=dense_labels(batch, "mlm"))
    theirs.loss.backward()
    assert ours.item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    assert_same_gradients(our_gradients, gradients(network.model))


def test_hand_made_tokens():
    """The issue's own words: hand-made tokens, same weights, same loss."""
    from lmctl.core.batch import Batch, Targets

    torch.manual_seed(1)
    network = SIZE.load(vocabulary(), {"mlm": vocabulary().size, "pair": 2})
    ids = torch.tensor([[2, 10, 4, 12, 3, 20, 4, 3], [2, 30, 31, 3, 4, 41, 3, 0]])
    segments = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 0]])
    mask = ids != 0
    positions, labels = torch.tensor([2, 6, 12]), torch.tensor([11, 21, 40])
    follows = torch.tensor([0, 1])
    inputs = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask}
    targets = {"mlm": Targets(positions, labels), "nsp": Targets(torch.tensor([0, 8]), follows)}
    learner = learner_of(network, MaskedLMAndNextSentence(), "t")
    terms = learner.task_losses(Batch("t", inputs, targets, 15))
    dense = torch.full((16,), -100)
    dense[positions] = labels
    theirs = network.model(ids, mask.long(), segments, labels=dense.view(2, 8), next_sentence_label=follows)
    assert (terms["mlm"] / 3 + terms["nsp"] / 2).item() == pytest.approx(theirs.loss.item(), rel=1e-6)


def test_checkpointed_activations_change_nothing():
    objective = MaskedLMAndNextSentence()
    batch = batch_of(objective)
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = SIZE.load(vocabulary(), heads_of(objective)).train()
        if recompute:
            network.checkpoint_activations()
        sum(learner_of(network, objective).task_losses(batch).values()).backward()
        results.append(gradients(network.model))
    assert_same_gradients(results[1], results[0])
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=0)


def test_embedding_rows_are_rounded_up():
    network = Bert(1, 32, 2, 64, pad_vocabulary_to=64).load(vocabulary(), {"mlm": vocabulary().size})
    assert network.model.config.vocab_size == 128
