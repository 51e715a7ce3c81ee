"""`augment=back_translate` with two random models: reproducible draws, distributed as temperature and rate say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch
import use_models
from small import plan
from transformers import BartForConditionalGeneration

from lmctl.augment.back_translate import BackTranslate
from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import Rewrite
from lmctl.tokenizer.vocabulary import vocabulary

TEXT = np.array([5, 9, 12, 21, 22])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = foreign.save(tmp_path_factory.mktemp("bart"), "BartForConditionalGeneration", "$A [SEP]", init_std=0.5)
    # Words only, so that what the likeliest pieces make is a text.
    return foreign.reweigh(made, lambda tensors: tensors["final_logits_bias"][:, :5].fill_(-9))


def rewriter(model: Path, **settings: Any) -> Rewrite:
    own = use_models.tokenizer("$A [SEP]")
    made = BackTranslate(str(model), str(model), **{"rate": 1.0, "max_new_tokens": 6, **settings})
    rewrite = made.rewriter(own, vocabulary(own))
    assert rewrite is not None
    return rewrite


def written(rewrite: Rewrite, seed: int, text: np.ndarray = TEXT) -> list[int]:
    return list(rewrite(text, np.random.default_rng(seed)))


def test_draws_are_its_own(model: Path):
    """Another thread draws from the process's generator meanwhile (dropout): it neither gives nor takes numbers."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [written(rewriter(model, variants=8), seed) for seed in range(5)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert [written(rewriter(model, variants=8), seed) for seed in range(5)] == first
    assert len(set(map(tuple, first))) > 1


def test_a_variant_is_the_same_whenever_it_is_met(model: Path):
    one, other = rewriter(model, variants=2), rewriter(model, variants=2)
    forth = {tuple(written(one, seed)) for seed in range(12)}
    back = {tuple(written(other, seed)) for seed in reversed(range(12))}
    assert forth == back
    assert len(forth) == 2


def test_rate_is_the_share_that_is_rewritten(model: Path):
    rewrite = rewriter(model, rate=0.3)
    changed = [written(rewrite, seed) != TEXT.tolist() for seed in range(400)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)
    assert not any(written(rewriter(model, rate=0.0), seed) != TEXT.tolist() for seed in range(5))


def test_without_temperature_it_is_what_transformers_finds_likeliest(model: Path):
    network = BartForConditionalGeneration.from_pretrained(model).eval()
    ids = torch.tensor([[*TEXT, 3]])
    for _ in range(2):
        output = network.generate(input_ids=ids, do_sample=False, num_beams=1, max_new_tokens=6)[0]
        ids = torch.tensor([[*(i for i in output.tolist() if i > 4), 3]])
    assert len(ids[0]) > 2
    assert written(rewriter(model, temperature=0.0), 0) == ids[0, :-1].tolist()


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_pieces_are_drawn_from_the_softmax(model: Path, tmp_path: Path, temperature: float):
    """The first piece of 300 variants against softmax(logits / temperature): within four standard errors each."""
    from lmctl.augment.back_translate import _Translator

    folder = foreign.copied(model, tmp_path / "sharp")
    foreign.reweigh(folder, lambda tensors: tensors["final_logits_bias"][:, 5:].copy_(torch.linspace(-2, 2, 27)))
    foreign.reweigh(folder, lambda tensors: tensors["model.shared.weight"].mul_(0.1))
    network = BartForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor([[5, 6, 3]]), "decoder_input_ids": torch.tensor([[3]])}
        expected = torch.softmax(network(**inputs).logits[0, -1] / temperature, -1).numpy()
    leg, count = _Translator("augment.there", str(folder), temperature, 2), 300
    words = use_models.tokenizer().convert_ids_to_tokens(range(use_models.SIZE))
    seen = [leg.translate("a b", seed).split()[:1] for seed in range(count)]
    for place, word in enumerate(words):
        if place > 4:
            share, error = seen.count([word]) / count, (expected[place] * (1 - expected[place]) / count) ** 0.5
            assert abs(share - expected[place]) < 4 * error + 2 / count, word


def test_a_model_that_does_not_translate_is_named(model: Path, tmp_path: Path):
    lost = BackTranslate(str(model), str(tmp_path / "nowhere"))
    text = use_models.tokenizer(), vocabulary(use_models.tokenizer())
    for ask in (lambda: list(lost.check(plan())), lambda: lost.rewriter(*text)):  # before any work, and by other verbs
        with pytest.raises(ConfigError, match=r"augment\.back=.*nowhere: no such directory"):
            ask()
    with pytest.raises(ConfigError, match=r"augment\.there=.*bert is no translation model"):
        BackTranslate(str(use_models.bert(tmp_path / "bert")), str(model)).rewriter(*text)
