"""`objective=rtd` on an ELECTRA of two trunks: against transformers' own losses, and by real commands."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command import metrics, succeed, write_documents
from small import learner_of, plan, prepared, vocabulary
from transformers import ElectraForMaskedLM, ElectraForPreTraining, ElectraForSequenceClassification

from lmctl.adversary.noise import Noise
from lmctl.augment.char_noise import CharNoise
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import Each
from lmctl.distill.none import NoTeacher
from lmctl.inference.class_answers import chosen_task
from lmctl.inference.load import load
from lmctl.model.bert import Bert
from lmctl.model.electra import Electra
from lmctl.model.pretrained import Pretrained
from lmctl.objective.base import Material
from lmctl.objective.rtd import ReplacedTokens, balanced_accuracy, drawn, gain, recall
from lmctl.runner.places import Cpu
from lmctl.train.learner import Pass, Share
from lmctl.train.unfinished import model_in

RTD = ReplacedTokens(mask_rate=0.3)
SIZE = Electra(2, 32, 2, 64, 24, 0.5, max_positions=64, dropout=0.0, attention_dropout=0.0, pad_vocabulary_to=64)
SMALL = ["mix=rtd", "data=text", "data.path=docs.txt", "tokenizer.vocab_size=300", "model.hidden=32", "log.every=1"]
SMALL += ["model.feed_forward=64", "model.embedding=16", "batch.size=8", "batch.seq_len=32", "runner=cpu"]
SMALL += ["schedule=constant", "schedule.warmup=0"]


class Taught(NoTeacher):
    @property
    def terms(self):
        return {"logits": None}


class WithAdapters(Electra):
    lora_rank = 4


def network_of(spec: Electra = SIZE):
    torch.manual_seed(0)
    network = spec.load(vocabulary(), RTD.heads("corpus", prepared().corpora["corpus"].train, vocabulary()))
    for parameter in network.parameters():  # nothing may be right because it is 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def batch_of(rows: list[int], rewrite=None):
    material = Material("corpus", prepared().corpora["corpus"].train, vocabulary(), "encoder", 24, rewrite=rewrite)
    return RTD.examples(material).collate(np.array(rows), np.zeros(len(rows), dtype=int), CounterRng(0, "test"))


def shorter(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return pieces[: generator.integers(8, len(pieces))]


def as_it_was(batch, ids: torch.Tensor, positions: torch.Tensor) -> None:
    """Let the original pieces at `positions` be those of `ids`."""
    for target in batch.targets.values():
        here = torch.isin(target.positions, positions)
        target.labels[here] = ids.view(-1)[target.positions[here]]


def test_losses_are_those_of_transformers_own_models_and_reach_every_parameter():
    network, batch = network_of(), batch_of([0, 1, 2, 3], rewrite=Each(shorter))
    mask, masked = batch.inputs["attention_mask"], batch.targets["mlm"].positions
    as_it_was(batch, RTD.predict(network, batch)["rtd"].inputs["input_ids"], masked[:3])
    found = RTD.predict(network, batch)
    assert not mask.all()
    assert (batch.inputs["input_ids"].view(-1)[masked] == vocabulary().mask).all()
    generator: ElectraForMaskedLM = network.generator.model
    wanted = torch.full_like(batch.inputs["input_ids"], -100).view(-1)
    wanted[masked] = batch.targets["mlm"].labels
    theirs = generator(batch.inputs["input_ids"], attention_mask=mask.long(), labels=wanted)
    filled = found["rtd"].inputs["input_ids"]
    original = torch.full_like(wanted, 0)
    original[batch.targets["rtd"].positions] = batch.targets["rtd"].labels
    replaced = (filled.view(-1) != original).long().view_as(filled) * mask
    assert 0 < replaced.sum() <= len(masked) - 3
    judge: ElectraForPreTraining = network.model
    judged = judge(filled, attention_mask=mask.long(), labels=replaced)

    counts = {f"corpus/{term}": float(count) for term, count in batch.counts().items()}
    assert counts["corpus/rtd"] == int(mask.sum())  # special pieces among them
    learner = learner_of(network, RTD)
    losses = learner([Pass(batch)], Share(counts))
    values = {term: float(value) / counts[f"corpus/{term}"] for term, value in losses.passes[0].items()}
    assert values == pytest.approx({"mlm": theirs.loss.item(), "rtd": judged.loss.item()}, rel=1e-5)
    assert losses.total.item() == pytest.approx((theirs.loss + 50 * judged.loss).item(), rel=1e-5)
    ours = torch.autograd.grad(losses.total, list(network.parameters()))
    right = torch.autograd.grad(theirs.loss + 50 * judged.loss, list(network.parameters()))
    for (name, _), one, other in zip(network.named_parameters(), ours, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert one.any(), name


def test_both_trunks_read_through_one_set_of_embeddings():
    network = network_of()
    one, other = network.model.electra.embeddings, network.generator.model.electra.embeddings
    assert one is not other
    assert [id(p) for p in one.parameters()] == [id(p) for p in other.parameters()]
    assert network.generator.model.generator_lm_head.weight is one.word_embeddings.weight
    assert network.generator.model.config.hidden_size == 16


def test_pieces_are_drawn_from_the_softmax_and_none_that_does_not_exist():
    logits = torch.tensor([1.0, -1.0, 0.5, 2.0, -30.0, 9.0])
    network = SimpleNamespace(head_width=lambda name: 5, head=lambda name, hidden: logits.expand(len(hidden), 6))
    uniforms = (torch.arange(40_000) + 0.5) / 40_000
    pieces = drawn(network, "generator", torch.zeros(40_000, 1), uniforms)
    shares = torch.bincount(pieces, minlength=6) / 40_000
    torch.testing.assert_close(shares[:5], logits[:5].softmax(dim=0), rtol=0, atol=1e-4)
    assert shares[5] == 0
    assert int(drawn(network, "generator", torch.zeros(1, 1), torch.ones(1))) <= 4


def test_what_is_drawn_for_a_row_depends_neither_on_its_batch_nor_on_chunks(monkeypatch):
    network, rows = network_of(), [0, 1, 2, 3]
    whole = RTD.predict(network, batch_of(rows))["rtd"].inputs["input_ids"]
    monkeypatch.setattr("lmctl.objective.rtd.DRAWN_BYTES", 3 * 4 * vocabulary().size)
    torch.randint(9, (9,))  # no global generator is asked
    alone = [RTD.predict(network, batch_of([row]))["rtd"].inputs["input_ids"] for row in reversed(rows)]
    assert torch.equal(whole, torch.cat(alone[::-1]))
    assert not torch.equal(whole, batch_of(rows).inputs["input_ids"])


def test_figures_say_more_than_that_most_pieces_are_original():
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])[:, None]
    logits = torch.tensor([2.0, -2.0, 2.0, -2.0, -2.0, -2.0, -2.0, -2.0])[:, None]
    found = RTD.metrics("rtd", logits, labels)
    values = {n: m.finish((m.sum / m.count).double().numpy()) for n, m in found.items() if m.finish is not None}
    loss = float(found["loss"].sum) / 8
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert values == pytest.approx({"gain": entropy - loss, "recall": 0.5, "balanced_accuracy": (1 / 2 + 5 / 6) / 2})
    assert all(metric.higher_is_better == (name != "loss") for name, metric in found.items())
    assert recall(np.array([0.0, 0.0])) == 1.0
    assert gain(np.array([0.5, 0.0])) == -0.5
    assert balanced_accuracy(np.array([0.0, 0.1, 0.9, 0.9])) == 0.5


def test_passes_need_not_agree_about_a_piece_that_only_one_of_them_replaced():
    network, batch = network_of(Electra(2, 32, 2, 64, 24, 0.5, dropout=0.3)), batch_of([0, 1, 2, 3])
    learner, share = learner_of(network.train(), RTD), Share(dict.fromkeys(["corpus/mlm", "corpus/rtd"], 1.0))
    torch.manual_seed(1)
    as_it_was(batch, RTD.predict(network, batch)["rtd"].inputs["input_ids"], batch.targets["mlm"].positions)
    torch.manual_seed(1)
    apart = float(learner([Pass(batch), Pass(batch)], share, agree=1.0).disagreement["rtd"])
    torch.manual_seed(1)
    one, other = (RTD.predict(network, batch)["rtd"] for _ in range(2))
    same = one.labels == other.labels
    assert one.labels.sum() == 0
    assert not same.all()
    p, q = (network.head("rtd", prediction.hidden)[same] for prediction in (one, other))
    assert apart == pytest.approx(float(((p.sigmoid() - q.sigmoid()) * (p - q)).sum().detach() / 2), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": Bert(1, 8, 1, 8)}, "nearest: mix=mlm, or for this mix model=electra_tiny"),
        ({"distill": Taught()}, "no teacher has seen"),
        ({"adversary": Noise(CharNoise())}, "nearest: adversary=freelb"),
        ({"model": WithAdapters(1, 8, 1, 8, 8)}, "nearest: model.lora_rank=0"),
    ],
)
def test_what_it_does_not_go_with_is_refused(changes, words):
    with pytest.raises(ConfigError) as error:
        plan(objective=RTD, **{"model": SIZE} | changes)
    assert words in f"{error.value}\n  nearest: {error.value.hint}"


def test_a_run_goes_on_to_the_bit_and_leaves_two_models_that_plain_transformers_loads(tmp_path, monkeypatch, capsys):
    write_documents(tmp_path / "docs.txt")
    for name, steps in (("whole", "6"), ("parts", "3"), ("parts", "6")):
        going_on = ["resume=auto"] if (tmp_path / name).exists() else SMALL
        succeed(
            "train",
            *going_on,
            f"run_dir={name}",
            f"budget.steps={steps}",
            "schedule=constant",
            "schedule.warmup=0",
            cwd=tmp_path,
        )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record = [line for line in metrics(whole) if line["split"] == "train"]
    assert record == [line for line in metrics(parts) if line["split"] == "train"]
    for file in ("model.safetensors", "generator/model.safetensors"):
        assert (whole / "model" / file).read_bytes() == (parts / "model" / file).read_bytes()

    unfinished = Pretrained(model_in(str(whole / "checkpoints" / "step-00000006"), "init_from"))
    ids = torch.arange(5, 25)[None]
    for place, kind, head in (("", ElectraForPreTraining, "rtd"), ("generator", ElectraForMaskedLM, "generator")):
        logits = kind.from_pretrained(whole / "model" / place).eval()(ids).logits.view(20, -1)
        for spec in (Pretrained(str(whole)), unfinished):
            network = spec.load(vocabulary(), {"rtd": 1, "generator": logits.shape[1]}).eval()
            trunk = network.generator if head == "generator" else network
            ours = network.head(head, trunk.encode({"input_ids": ids}, torch.arange(20)))
            torch.testing.assert_close(ours, logits.view_as(ours), rtol=1e-4, atol=1e-5)

    tuned = Pretrained(str(whole)).load(vocabulary(), {"topics": 7}).eval()
    assert isinstance(tuned.model, ElectraForSequenceClassification)
    assert [line for line in tuned.report if line.startswith("new:")] == ["new: classifier.dense, classifier.out_proj"]
    ours = tuned.head("topics", tuned.encode({"input_ids": ids}, None))
    torch.testing.assert_close(ours, tuned.model(ids).logits, rtol=1e-4, atol=1e-5)
    monkeypatch.chdir(tmp_path)
    answering = load("whole", Cpu())
    assert isinstance(answering.model, ElectraForMaskedLM)
    assert "so its generator does" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="whole/model is not a classifier"):
        chosen_task(answering, None)
