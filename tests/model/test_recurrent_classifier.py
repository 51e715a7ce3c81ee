"""Recurrent classifiers: torch's own stack on single rows, padding that changes nothing, and use in every mix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compared import padded, same_gradients
from small import learner_of, plan, prepared, store, tokenizer, vocabulary
from torch import nn
from transformers import AutoModelForSequenceClassification

from lmctl.config.schema import Budget
from lmctl.core.batch import Batch, Targets
from lmctl.core.errors import ConfigError
from lmctl.core.token_store import TokenStore
from lmctl.mix.mix import Mix, Task
from lmctl.model.artifact.auto import register
from lmctl.model.pretrained import Pretrained
from lmctl.model.recurrent_classifier import BiLSTM
from lmctl.objective.classify import Classify
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm import MaskedLM
from lmctl.optim.adamw import AdamW
from lmctl.train.prepare import Prepared, TokenizedCorpus
from lmctl.train.trainer import Trainer

V = vocabulary()
LENGTHS = [9, 4, 1, 7]
CELLS = pytest.mark.parametrize("cell", ["lstm", "gru"])
POOLINGS = pytest.mark.parametrize("pooling", ["max", "mean", "last"])


def network(cell: str = "lstm", pooling: str = "max", heads: dict[str, int] | None = None, **changes):
    torch.manual_seed(0)
    spec = BiLSTM(2, 8, 12, cell, pooling, **{"dropout": 0.0} | changes)
    return spec.load(V, heads or {"topics": 3})


def batch(pad: int = V.pad) -> dict[str, torch.Tensor]:
    """Rows of different lengths whose second halves are second texts."""
    ids, mask = padded(LENGTHS, seed=1, pad=pad)
    segments = (torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None] // 2) & mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments.long()}


def logits_of(net, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return net.head("topics", net.encode(inputs, None))


def by_torch(net, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same logits row by row, without padding, by torch's own bidirectional stack over the same parameters."""
    model, config = net.pretrained(), net.pretrained().config
    kind = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell]
    stack = kind(12, 8, 2, bidirectional=True, batch_first=True)
    for place, layer in enumerate(model.model.layers.stack):
        for name, parameter in layer.named_parameters():
            setattr(stack, name.replace("_l0", f"_l{place}"), parameter)
    rows = []
    for row, length in enumerate(LENGTHS):
        embedded = [
            model.model.embeddings.weight[inputs["input_ids"][row, place]]
            + model.model.segment_embeddings.weight[inputs["token_type_ids"][row, place]]
            for place in range(length)
        ]
        states, _ = stack(torch.stack(embedded)[None])
        pooled = {
            "max": states[0].max(dim=0).values,
            "mean": sum(states[0]) / length,
            "last": torch.cat([states[0, length - 1, :8], states[0, 0, 8:]]),
        }[config.pooling]
        rows.append(model.classifier.weight @ pooled + model.classifier.bias)
    return torch.stack(rows)


@CELLS
@POOLINGS
def test_it_is_torchs_stack_on_rows_without_padding(cell: str, pooling: str):
    net, inputs = network(cell, pooling).train(), batch()
    ours, theirs = logits_of(net, inputs), by_torch(net, inputs)
    assert torch.allclose(ours, theirs, atol=1e-6)
    losses = [nn.functional.cross_entropy(some, torch.tensor([0, 1, 2, 1])) for some in (ours, theirs)]
    found = same_gradients(net, *losses, atol=1e-6, rtol=1e-5)
    assert all(gradient.any() for gradient in found.values())
    assert found.keys() == dict(net.named_parameters()).keys()


@CELLS
@POOLINGS
def test_padding_changes_nothing(cell: str, pooling: str):
    net, inputs = network(cell, pooling).train(), batch()
    together = logits_of(net, inputs)
    assert torch.equal(logits_of(net, batch(pad=77)), together)
    for row, length in enumerate(LENGTHS):
        alone = {name: value[row : row + 1, :length] for name, value in inputs.items()}
        assert torch.allclose(logits_of(net, alone)[0], together[row], atol=1e-6)
        del alone["attention_mask"]
        assert torch.allclose(logits_of(net, alone)[0], together[row], atol=1e-6)
    net.zero_grad()
    together.sum().backward()
    seen = set(inputs["input_ids"][inputs["attention_mask"]].tolist())
    moved = net.model.model.embeddings.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert set(moved) == seen
    assert V.pad not in seen


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]], [[0, 0, 0]]])
def test_padding_elsewhere_is_refused(mask: list):
    with pytest.raises(ValueError, match="attention_mask: each row must begin with its text"):
        network().pretrained()(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.tensor(mask))


def test_a_second_text_is_told_from_the_first():
    net, inputs = network().eval(), batch()
    pair = logits_of(net, inputs)
    single = logits_of(net, inputs | {"token_type_ids": torch.zeros_like(inputs["token_type_ids"])})
    del inputs["token_type_ids"]
    assert torch.equal(logits_of(net, inputs), single)
    assert not torch.allclose(pair, single, atol=1e-4)


def test_dropout_is_on_embeddings_between_layers_and_before_the_classifier():
    net = network(dropout=0.5).train()
    found = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, i, out, name=name: found.__setitem__(name, (out == 0).any().item()))
    logits_of(net, batch())
    assert found == {"model.model.dropout": True, "model.model.layers.dropout": True, "model.dropout": True}
    net.eval()
    assert torch.equal(logits_of(net, batch()), logits_of(net, batch()))


@pytest.mark.parametrize(
    ("kind", "problem", "labels"),
    [
        ("class", "single_label_classification", torch.tensor([2, 0, 1, 1])),
        ("classes", "multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])),
        ("number", "regression", torch.tensor([0.5, -1.0, 2.0, 3.5])),
    ],
)
def test_its_loss_is_that_of_the_objective(kind: str, problem: str, labels: torch.Tensor):
    net = network(heads={"topics": 1 if kind == "number" else 3})
    net.pretrained().config.problem_type = problem
    rows = Batch("topics", batch(), {"label": Targets(torch.arange(4), labels)}, sum(LENGTHS))
    with torch.no_grad():
        summed = learner_of(net, Classify(kind), "topics").task_losses(rows)["label"]
        theirs = net.pretrained()(**batch(), labels=labels).loss
    assert float(summed) == pytest.approx(float(theirs) * (4 * 3 if kind == "classes" else 4), rel=1e-5)


def test_it_saves_and_loads_as_a_classifier(tmp_path: Path):
    register()
    net, inputs = network("gru", "mean").eval(), batch()
    net.pretrained().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.allclose(loaded(**inputs).logits, logits_of(net, inputs), atol=1e-6)
    again = Pretrained(str(tmp_path))
    assert (again.family, again.max_positions) == ("encoder", None)
    ours = again.load(V, {"topics": 3}).eval()
    assert torch.allclose(logits_of(ours, inputs), logits_of(net, inputs), atol=1e-6)


def test_a_trunk_gets_new_heads_and_may_rest(tmp_path: Path):
    first = network().eval()
    first.pretrained().save_pretrained(tmp_path)
    tuned = Pretrained(str(tmp_path), dropout=0.25, freeze=1).load(V, {"stars": 1, "topics": 3})
    assert torch.allclose(tuned.eval().encode(batch(), None), first.encode(batch(), None), atol=1e-6)
    assert tuned.head("stars", torch.zeros(2, 16)).shape == (2, 1)
    assert tuned.head("topics", torch.zeros(2, 16)).shape == (2, 3)
    assert "new: classifier" in tuned.report
    assert {m.p for m in tuned.modules() if isinstance(m, nn.Dropout)} == {0.25}
    resting = {name.split(".weight")[0] for name, p in tuned.named_parameters() if not p.requires_grad}
    assert {"model.model.embeddings", "model.model.segment_embeddings"} < resting
    assert all("embeddings" in name or "stack.0" in name for name in resting)
    assert any("stack.0" in name for name in resting)
    heads_only = Pretrained(str(tmp_path), freeze=-1).load(V, {"topics": 3})
    assert [n for n, p in heads_only.named_parameters() if p.requires_grad] == [
        "model.classifier.weight",
        "model.classifier.bias",
    ]


def test_layers_go_from_the_embeddings_to_the_head():
    net = network()
    layers = net.layers()
    sizes = [sum(p.numel() for p in layer) for layer in layers]
    parts = [net.model.model.embeddings, *net.model.model.layers.stack, net.model.classifier]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    counts[0] += net.model.model.segment_embeddings.weight.numel()
    assert sizes == counts


@pytest.mark.parametrize(
    ("heads", "what"), [({"mlm": V.size}, "masked language model"), ({"topics": 2, "lm": V.size}, "language model")]
)
def test_predicting_text_is_refused(heads: dict[str, int], what: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=f"a BiLSTM has no {what} head") as told:
        network(heads=heads)
    assert "model=bert_tiny" in str(told.value.hint)
    assert "mix=classify" in str(told.value.hint)
    network().pretrained().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"a BiLSTM has no {what} head"):
        Pretrained(str(tmp_path)).load(V, heads)


def test_what_it_cannot_learn_is_refused_before_training(alone):
    with pytest.raises(ConfigError, match="a BiLSTM has no masked language model head"):
        Trainer(plan(model=BiLSTM(1, 8, 8), objective=MaskedLM()), prepared(), alone)
    with pytest.raises(ConfigError, match="CausalLM needs a decoder, and BiLSTM is an encoder") as told:
        plan(model=BiLSTM(1, 8, 8), objective=CausalLM())
    assert "or for this model mix=classify" in str(told.value.hint)


def labelled(seed: int, texts: int) -> TokenStore:
    """Rows whose class one word of the last text tells; in a pair, the first text has such a word as well."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 120)
    rows = []
    for label in labels:
        told = [label] if texts == 1 else [rng.integers(3), label]
        rows.append(
            [" ".join(rng.permutation([f"w{word}", *(f"w{n}" for n in rng.integers(3, 20, 4))])) for word in told]
        )
    base = store(rows)
    return TokenStore(
        base.tokens, base.sentences, base.documents, base.histogram, base.characters, labels, ("a", "b", "c")
    )


@pytest.mark.parametrize("texts", [1, 2])
def test_it_learns(alone, texts: int):
    """Two tasks at once, so that an extra head learns as well."""
    corpora = {name: TokenizedCorpus(labelled(0, texts), labelled(1, texts)) for name in ("topics", "again")}
    ready = Prepared(tokenizer(), V, corpora, {"tokenizer": "small"} | dict.fromkeys(corpora, "small"))
    task = Task(Classify(), plan().data)
    model, mix = BiLSTM(1, 16, 16, dropout=0.1), Mix({"topics": task, "again": task})
    own = plan(model=model, mix=mix, optim=AdamW(lr=3e-2), budget=Budget(steps=60), size=24)
    trainer = Trainer(own, ready, alone)
    losses = []
    for report in trainer.steps():
        counts = {name: max(count, 1.0) for name, count in report.counts.items()}
        losses.append({name: float(value) / counts[name] for name, value in report.losses.totals.items()})
    for name in ("topics/label", "again/label"):
        assert np.mean([step[name] for step in losses[:3]]) == pytest.approx(np.log(3), abs=0.2)
        assert np.mean([step[name] for step in losses[-5:]]) < 0.3
