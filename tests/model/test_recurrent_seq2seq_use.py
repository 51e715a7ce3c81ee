"""Recurrent encoder-decoders at work: they carry state while they write, are saved and loaded, learn and translate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import use_models
from compared import padded
from recurrent_seq2seq import KINDS, SOURCE, E, H, V, network, real_logits, rows
from small import SUMMARY, plan, prepared, store, tokenizer, vocabulary
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from lmctl.config.schema import Budget
from lmctl.core.paths import Paths
from lmctl.inference.decode import translate
from lmctl.inference.likelihood import pad_texts
from lmctl.model.artifact.auto import register
from lmctl.model.pretrained import Pretrained
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.objective.denoise import Denoise
from lmctl.objective.translate import Translate
from lmctl.optim.adamw import AdamW
from lmctl.train.export import export
from lmctl.train.prepare import Prepared, TokenizedCorpus
from lmctl.train.trainer import Trainer


def generated(model, **how):
    source, mask = padded(SOURCE, 1)
    return model.generate(source, attention_mask=mask.long(), max_new_tokens=9, **{"do_sample": False} | how)


@KINDS
def test_greedy_search_is_the_best_piece_at_every_step(attention: str, cell: str):
    model = network(attention, cell, sharp=2.0).pretrained().eval()
    source, mask = padded(SOURCE, 1)
    read: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for name, side in (("encoder", model.get_encoder()), ("decoder", model.get_decoder())):
        side.embeddings.register_forward_hook(lambda m, i, out, name=name: read[name].append(out.shape[1]))
    found = generated(model, return_dict_in_generate=True, output_logits=True)
    written = found.sequences
    # The source is read once and every piece once: state is carried.
    assert read == {"encoder": [7], "decoder": [1] * (written.shape[1] - 1)}
    assert len({tuple(row) for row in written.tolist()}) > 1
    expected, ended = torch.full((3, 1), V.pad), torch.zeros(3, dtype=torch.bool)
    while expected.shape[1] < written.shape[1]:
        logits = model(source, mask, decoder_input_ids=expected).logits[:, -1]
        assert torch.allclose(found.logits[expected.shape[1] - 1][~ended], logits[~ended], atol=1e-5)
        best = logits.argmax(dim=-1)
        expected = torch.cat([expected, torch.where(ended, V.pad, best)[:, None]], dim=1)
        ended |= best == V.sep
    assert torch.equal(written, expected)
    assert torch.equal(generated(model, num_beams=1), written)
    assert torch.equal(generated(model, use_cache=False), written)


@KINDS
def test_beam_search_carries_the_state_of_each_hypothesis(attention: str, cell: str):
    model = network(attention, cell, sharp=2.0).pretrained().eval()
    how = {"num_beams": 5, "num_return_sequences": 5, "length_penalty": 0.7}
    found = generated(model, **how, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(found.sequences, generated(model, **how, use_cache=False))
    source, mask = (part.repeat_interleave(5, dim=0) for part in padded(SOURCE, 1))
    with torch.no_grad():
        logits = model(source, mask, decoder_input_ids=found.sequences[:, :-1]).logits
    pieces = found.sequences[:, 1:]
    each = logits.log_softmax(dim=-1).gather(2, pieces[..., None])[..., 0]
    ends = ((pieces == V.sep).cumsum(dim=1) - (pieces == V.sep).long()) == 0  # up to the first end, included
    lengths = ends.sum(dim=1)
    assert torch.allclose((each * ends).sum(dim=1) / lengths**0.7, found.sequences_scores, atol=1e-5)


def test_sampling_draws_what_the_model_expects():
    model = network("luong", sharp=2.0).pretrained().eval()
    source, mask = padded([4], 3)
    torch.manual_seed(0)
    drawn = model.generate(
        source, attention_mask=mask.long(), do_sample=True, top_k=0, max_new_tokens=2, num_return_sequences=4000
    )
    first = drawn[:, 1]
    likely = model(source, mask, decoder_input_ids=torch.full((1, 1), V.pad)).logits[0, -1].softmax(dim=-1)
    shares = torch.bincount(first, minlength=V.size) / len(first)
    assert (shares - likely).abs().max() < 0.03
    # What follows depends on what was drawn.
    common = int(first.mode().values)
    then = model(source, mask, decoder_input_ids=torch.tensor([[V.pad, common]])).logits[0, -1].softmax(dim=-1)
    after = drawn[first == common, 2]
    assert (torch.bincount(after, minlength=V.size) / len(after) - then).abs().max() < 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_it_saves_loads_and_goes_on(tied: bool, tmp_path: Path):
    register()
    net, inputs = network("luong", "gru", tied).eval(), rows()
    net.pretrained().save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    logits = real_logits(net, inputs)
    assert torch.allclose(model(**inputs).logits[inputs["decoder_attention_mask"]], logits, atol=1e-6)
    again = Pretrained(str(tmp_path), dropout=0.25)
    assert (again.family, again.max_positions) == ("seq2seq", None)
    loaded = again.load(V, {"lm": V.size}).eval()
    assert loaded.report == [f"loaded {len(net.state_dict()) - 2 * tied} of {len(net.state_dict()) - 2 * tied} tensors"]
    assert torch.allclose(real_logits(loaded, inputs), logits, atol=1e-6)
    assert {m.p for m in loaded.pretrained().modules() if isinstance(m, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_that_grew_fits_both_sides(tied: bool, tmp_path: Path):
    net, inputs = network(tied=tied).eval(), rows()
    net.pretrained().save_pretrained(tmp_path)
    loaded = Pretrained(str(tmp_path)).load(replace(V, size=V.size + 3), {"lm": V.size + 3}).eval()
    logits = real_logits(loaded, inputs)
    assert logits.shape[1] == V.size + 3
    assert torch.allclose(logits[:, : V.size], real_logits(net, inputs), atol=1e-6)
    inputs["input_ids"][0, 0] = inputs["decoder_input_ids"][0, 1] = V.size + 2
    assert real_logits(loaded, inputs).isfinite().all()


LINES = ["the cat sits on the mat .", "a", "the dog runs , the red dog runs .", "b c d"]


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A random model in a directory, as `lmctl translate` and `lmctl score` open it."""
    torch.manual_seed(0)
    known = vocabulary()
    object.__setattr__(known, "size", use_models.SIZE)
    net = RecurrentMT(1, 1, 16, 16, attention="luong").load(known, {"lm": use_models.SIZE})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return use_models.opened(use_models.save(tmp_path_factory.mktemp("rnn"), net.pretrained(), "$A [SEP]"))


def test_translations_of_a_batch_are_those_of_single_lines(translator):
    assert translator.family == "seq2seq"
    together = list(translate(translator, [*LINES, ""], 4, 3, 1.0, 8))
    alone = [line for text in LINES for line in translate(translator, [text], 1, 3, 1.0, 8)]
    assert together == [*alone, ""]
    assert len(set(alone)) > 1


def test_padded_targets_are_read_as_one_piece_after_another(translator):
    targets = [[0, *pieces] for pieces in translator.pieces(LINES[::-1])]
    ids, _ = pad_texts(targets, translator.pad)
    together = translator.model(**translator.framed(LINES), decoder_input_ids=ids).logits
    assert len({len(target) for target in targets}) > 1
    for source, target, logits in zip(LINES, targets, together, strict=True):
        alone = translator.framed([source])["input_ids"]
        slow = [
            translator.model(input_ids=alone, decoder_input_ids=torch.tensor([target[: place + 1]])).logits[0, -1]
            for place in range(len(target))
        ]
        torch.testing.assert_close(logits[: len(target)], torch.stack(slow), rtol=1e-4, atol=1e-5)


def reversals(seed: int, rows: int):
    """Texts of three or four words with the same words backwards."""
    rng = np.random.default_rng(seed)
    texts = [[f"w{word}" for word in rng.integers(0, 8, rng.integers(3, 5))] for _ in range(rows)]
    return store([[" ".join(text), " ".join(reversed(text))] for text in texts])


def learn(alone, ready: Prepared, **changes) -> list[float]:
    """The losses of a run."""
    trainer = Trainer(plan(**changes), ready, alone)
    return [float(r.losses.totals["corpus/lm"]) / r.counts["corpus/lm"] for r in trainer.steps()]


@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
def test_it_learns_to_translate(alone, attention: str):
    corpora = {"corpus": TokenizedCorpus(reversals(0, 400), reversals(1, 20))}
    ready = Prepared(tokenizer(), V, corpora, {"tokenizer": "small"})
    model, optim = RecurrentMT(1, 1, 32, 32, attention=attention, dropout=0.0), AdamW(lr=1e-2)
    losses = learn(alone, ready, model=model, objective=Translate(0.0), optim=optim, budget=Budget(steps=80), size=32)
    assert losses[0] == pytest.approx(np.log(V.size), abs=0.3)
    assert np.mean(losses[-5:]) < 0.6  # a model that knows the words alone is at 1.8


def test_an_exported_run_says_how_to_load_it(alone, tmp_path: Path, monkeypatch):
    corpora = {"corpus": TokenizedCorpus(reversals(0, 40), reversals(1, 20))}
    ready = Prepared(tokenizer(), V, corpora, {"tokenizer": "small"})
    trainer = Trainer(plan(model=RecurrentMT(1, 1, H, E), objective=Translate()), ready, alone)
    export(Paths(tmp_path), trainer, SUMMARY)
    card = (tmp_path / "model" / "README.md").read_text()
    snippet = card.split("```python")[1].split("```")[0]
    assert "from lmctl.model.rnn.seq2seq import RecurrentForConditionalGeneration" in snippet
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(snippet, found)
    for name, value in trainer.network.pretrained().state_dict().items():
        assert torch.equal(found["model"].state_dict()[name], value)
    assert found["tokenizer"]("w1 w2")["input_ids"] == [6, 7, V.sep]


def test_it_learns_to_denoise(alone):
    model, optim = RecurrentMT(1, 1, 16, 16), AdamW(lr=2e-2)
    losses = learn(alone, prepared(), model=model, objective=Denoise("bart"), optim=optim, budget=Budget(steps=25))
    assert np.mean(losses[-5:]) < losses[0] - 0.2
