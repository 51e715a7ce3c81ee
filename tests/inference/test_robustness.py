"""`suite=robustness`: as much noise as it says, figures of the other suites, embeddings shifted against a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import use_models
from suite_jobs import DOCUMENTS, NAMES, classifier, job, labelled

from lmctl.core.batch import Row
from lmctl.core.typing_errors import words
from lmctl.inference.suites import job as suites


def test_robustness_is_the_same_metric_under_noise(decoder, tmp_path):
    rows = DOCUMENTS * 8
    figures = suites.run("robustness", job(decoder, rows, tmp_path))
    clean = suites.run("perplexity", job(decoder, rows, tmp_path))
    assert figures["suite"] == "perplexity"
    assert figures["loss"] == clean["loss"]
    noises = ("typos", "dropped_words", "swapped_words")
    levels = [figures[f"loss_{noise}_{level}"] for noise in noises for level in (5, 10, 20)]
    assert len({*levels, clean["loss"]}) == 10
    assert figures == suites.run("robustness", job(decoder, rows, tmp_path))


@pytest.mark.parametrize("kind", [None, "multi_label_classification"])
def test_classifiers_are_shifted_against(tmp_path, kind):
    """Each row along the gradient of its own loss: the same by plain transformers, one row at a time."""
    loaded = classifier(tmp_path, **({"problem_type": kind} if kind else {}))
    rows = labelled(40, lambda rng: NAMES[rng.integers(3)])
    figures = suites.run("robustness", job(loaded, rows, tmp_path, "labelled"))
    right = {0.1: 0, 0.3: 0, 1.0: 0}
    for row in rows:
        inputs = loaded.tokenizer(*row.texts, return_tensors="pt")
        embedded = loaded.model.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
        target = torch.tensor([NAMES.index(row.label)])
        if kind:
            target = torch.nn.functional.one_hot(target, 3).float()
        (gradient,) = torch.autograd.grad(loaded.model(inputs_embeds=embedded, labels=target, **inputs).loss, embedded)
        for radius in right:
            with torch.no_grad():
                logits = loaded.model(inputs_embeds=embedded + radius * gradient / gradient.norm(), **inputs).logits
            right[radius] += bool(((logits > 0) == (target > 0)).all() if kind else logits.argmax() == target)
    found = {name: value for name, value in figures.items() if "embedding" in name}
    assert found == {f"accuracy_embedding_{radius:g}": count / 40 for radius, count in right.items()}
    assert figures["accuracy"] > found["accuracy_embedding_0.3"] > found["accuracy_embedding_1"] or kind


def test_noise_leaves_references_alone(translator, tmp_path):
    """A model that says the same whatever it reads is as good under noise; and it is good for something."""
    with torch.no_grad():
        same = use_models.opened(use_models.marian(tmp_path / "same"))
        for parameter in same.model.model.encoder.parameters():
            parameter.zero_()
        same.model.final_logits_bias[0, same.tokenizer.convert_tokens_to_ids("mat")] += 100
    rows = [Row(["a b c d e f g h", "the cat sits on the mat ."])] * 6
    figures = suites.run("robustness", job(same, rows, tmp_path, "parallel", beams=1, max_new_tokens=5))
    assert figures["chrf"] > 5
    assert {value for name, value in figures.items() if name.startswith("chrf")} == {figures["chrf"]}
    assert not (tmp_path / "hypotheses.txt").exists()


ENGLISH = "Whatever people type quickly contains a few errors, which nobody sees before it is too late to mend them. "
CHINESE = "机器学习改变了世界的面貌，人们每天都在使用不同的模型来处理文字和声音。"
CHANGED = {
    "typos": lambda a, b: sum(x != y for x, y in zip(a, b, strict=True)) / sum(map(str.isalnum, a)),
    "dropped_words": lambda a, b: 1 - len(words(b)) / len(words(a)),
    "swapped_words": lambda a, b: sum(x != y for x, y in zip(words(a), words(b), strict=True)) / len(words(a)),
}


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, ENGLISH + CHINESE], ids=["english", "chinese", "both"])
@pytest.mark.parametrize("short", [False, True])
def test_as_much_is_disturbed_as_the_figure_says(decoder, tmp_path, monkeypatch, text, short):
    """Counted in what the model is given to read: 5, 10 and 20 % of the characters or words."""
    read: list[list[str]] = []

    def look(given):
        read.append([text for row in given.rows() for text in row.texts])
        return {"loss": 0.0}

    monkeypatch.setattr("lmctl.inference.suites.perplexity.evaluate", look)
    lines = [" ".join(words(text)[:6])] * 400 if short else [text] * 150
    suites.run("robustness", job(decoder, [Row([line]) for line in lines], tmp_path))
    clean, *disturbed = read
    assert clean == lines
    expected = [(noise, level) for noise in CHANGED for level in (0.05, 0.1, 0.2)]
    for (noise, level), texts in zip(expected, disturbed, strict=True):
        shares = [CHANGED[noise](line, other) for line, other in zip(lines, texts, strict=True)]
        error = 4 * np.std(shares) / len(shares) ** 0.5 + 0.002
        assert np.mean(shares) == pytest.approx(level, abs=error), noise
