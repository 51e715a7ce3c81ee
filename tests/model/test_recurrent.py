"""Recurrent language models: torch's own cells, carried state, and use through plain transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compared import padded
from resumed import goes_on_to_the_bit
from small import documents, plan, prepared, store, vocabulary
from transformers import AutoModelForCausalLM

from lmctl.config.schema import Budget, Evaluation
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import DataError
from lmctl.model.artifact.auto import register
from lmctl.model.pretrained import Pretrained
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.base import Material
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.train.trainer import Trainer

V = vocabulary()
CELLS = pytest.mark.parametrize("cell", ["lstm", "gru"])


def network(cell: str = "lstm", **changes):
    torch.manual_seed(0)
    return RecurrentLM(2, 16, cell, **{"dropout": 0.0} | changes).load(V, {"lm": V.size})


def ids(rows: int, length: int) -> torch.Tensor:
    return padded([length] * rows, seed=1)[0]


@CELLS
def test_layers_are_torchs_own_stack(cell: str):
    net, tokens = network(cell).eval(), ids(3, 9)
    stack = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](16, 16, 2, batch_first=True)
    for place, layer in enumerate(net.model.model.layers):
        for name, value in layer.named_parameters():
            getattr(stack, name.replace("l0", f"l{place}")).data.copy_(value.data)
    expected, _ = stack(net.model.model.embeddings(tokens))
    hidden = net.encode({"input_ids": tokens}, torch.arange(27))
    assert torch.allclose(hidden, expected.reshape(-1, 16), atol=1e-6)
    assert net.model.lm_head.weight is net.model.model.embeddings.weight


@CELLS
def test_step_by_step_is_all_at_once(cell: str):
    model, tokens = network(cell).pretrained().eval(), ids(2, 7)
    whole, state, steps = model(tokens).logits, None, []
    for place in range(7):
        output = model(tokens[:, place : place + 1], state=state)
        state = output.state
        steps.append(output.logits)
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-6)


@CELLS
def test_carried_rows_are_one_long_row(cell: str):
    net, tokens = network(cell).train(), ids(3, 12)
    whole = net.encode({"input_ids": tokens}, torch.arange(36)).reshape(3, 12, 16)
    parts = []
    for begin in (0, 4, 8):
        inputs = {"input_ids": tokens[:, begin : begin + 4], "track": torch.tensor([4, 0, 7])}
        inputs["fresh"] = torch.full((3,), begin == 0)
        parts.append(net.encode(inputs, torch.arange(12)).reshape(3, 4, 16))
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-6)


def test_gradients_end_where_a_row_begins_and_fresh_rows_start_from_nothing():
    net, tokens = network().train(), ids(2, 8)
    embedded = []
    net.model.model.embeddings.register_forward_hook(lambda m, i, out: (out.retain_grad(), embedded.append(out))[1])
    for begin in (0, 4):
        inputs = {"input_ids": tokens[:, begin : begin + 4], "track": torch.tensor([0, 1])}
        inputs["fresh"] = torch.tensor([True, begin == 0])
        hidden = net.encode(inputs, torch.arange(8)).reshape(2, 4, 16)
    hidden.sum().backward()
    assert embedded[0].grad is None
    assert (embedded[1].grad != 0).any()
    alone = net.encode({"input_ids": tokens[:1, 4:]}, torch.arange(4))
    assert torch.allclose(hidden[0], alone, atol=1e-6)
    assert not torch.allclose(hidden[1], net.encode({"input_ids": tokens[1:, 4:]}, torch.arange(4)), atol=1e-3)


def test_validation_has_tracks_of_its_own():
    net, tokens = network().train(), ids(1, 4)
    step = {"input_ids": tokens, "track": torch.tensor([0])}
    net.encode(step | {"fresh": torch.tensor([True])}, torch.arange(4))
    kept = net.carried()
    net.eval()
    net.encode(step | {"fresh": torch.tensor([True])}, torch.arange(4))
    net.encode(step | {"fresh": torch.tensor([False])}, torch.arange(4))
    after = net.carried()
    assert kept.keys() == after.keys() != set()
    assert all(torch.equal(kept[name], value) for name, value in after.items())


def test_dropped_weights_and_locked_units():
    net = network(weight_drop=0.5).train()
    tokens = ids(1, 6)
    first, second = (net.encode({"input_ids": tokens}, torch.arange(6)) for _ in range(2))
    assert torch.allclose(first[0], second[0])  # nothing recurs at the first position
    assert not torch.allclose(first[5], second[5])
    net.eval()
    assert torch.equal(*(net.encode({"input_ids": tokens}, torch.arange(6)) for _ in range(2)))
    locked = network(dropout=0.5, locked_dropout=True).train()
    hidden = locked.encode({"input_ids": ids(2, 30)}, torch.arange(60)).reshape(2, 30, 16)
    dead = (hidden == 0).all(dim=1)
    assert torch.equal(dead, (hidden == 0).any(dim=1))
    assert 0 < dead.float().mean() < 1
    assert not torch.equal(dead[0], dead[1])


def test_rows_go_through_the_stream_once_in_order():
    text = store(documents(12))
    rows = StreamedLM("sentence").examples(Material("corpus", text, V, "decoder", 10, batch_rows=3))
    batch = rows.collate(np.arange(len(rows)), np.zeros(len(rows), dtype=int), CounterRng(0, "x"))
    pieces = batch.inputs["input_ids"].reshape(rows.segments, 3, 10).permute(1, 0, 2).reshape(3, -1)
    per_track = len(rows.stream) // 3
    expected = np.stack([rows.stream[t * per_track : t * per_track + rows.segments * 10] for t in range(3)])
    assert (pieces.numpy() == expected).all()
    assert (rows.stream == V.sep).sum() == len(text.sentences) - 1
    labels = batch.targets["lm"].labels.reshape(-1, 10)
    assert torch.equal(labels[:, :-1], batch.inputs["input_ids"][:, 1:])
    assert batch.inputs["fresh"].tolist() == [True] * 3 + [False] * (len(rows) - 3)
    with pytest.raises(DataError, match="too few for 900 tracks"):
        StreamedLM().examples(Material("corpus", text, V, "decoder", 10, batch_rows=900))


def run_of(alone, **changes) -> Trainer:
    settings = {"objective": StreamedLM(), "size": 4, "seq_len": 8, "budget": Budget(steps=8)}
    return Trainer(plan(model=RecurrentLM(1, 16, dropout=0.2), **settings, **changes), prepared(), alone)


@pytest.mark.parametrize("micro", [1, 3, 7, 64])
def test_validation_reads_every_track_in_order_whatever_a_batch_holds(alone, micro: int):
    """As one long row per track, read by torch's own cells without a cut."""
    trainer = run_of(alone, micro=micro, eval=Evaluation(rows=None))
    for _, _ in zip(range(2), trainer.steps(), strict=False):
        pass
    examples, network = trainer.validation.examples["corpus"], trainer.network.eval()
    rows = np.arange(len(examples))
    assert examples.segments > 2
    whole = examples.collate(rows, np.zeros_like(rows), CounterRng(0, "x"))
    pieces, labels = (
        ids.reshape(-1, examples.tracks, 8).permute(1, 0, 2).reshape(examples.tracks, -1)
        for ids in (whole.inputs["input_ids"], whole.targets["lm"].labels)
    )
    with torch.no_grad():
        hidden = network.encode({"input_ids": pieces}, torch.arange(pieces.numel()))
        right = torch.nn.functional.cross_entropy(network.head("lm", hidden), labels.reshape(-1))
    assert trainer.validation.scores(trainer.learner)["corpus/lm"] == pytest.approx(float(right), rel=1e-5)


def test_a_run_goes_on_with_the_state_it_carried(alone, tmp_path: Path):
    goes_on_to_the_bit(lambda: run_of(alone), 5, tmp_path)


def test_it_saves_loads_and_generates(tmp_path: Path):
    register()
    net = network().eval()
    net.pretrained().save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = ids(1, 5)
    assert torch.equal(model(tokens).logits, net.pretrained()(tokens).logits)
    written = model.generate(tokens, max_new_tokens=6, do_sample=False)
    expected = tokens
    while expected.shape[1] < written.shape[1]:
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(written, expected)
    assert model.generate(tokens, max_new_tokens=6, num_beams=3, do_sample=False).shape[0] == 1
    again = Pretrained(str(tmp_path))
    assert again.family == "decoder"
    assert again.max_positions is None
    loaded = again.load(V, {"lm": V.size}).eval()
    assert torch.equal(
        loaded.encode({"input_ids": tokens}, torch.arange(5)), net.encode({"input_ids": tokens}, torch.arange(5))
    )
