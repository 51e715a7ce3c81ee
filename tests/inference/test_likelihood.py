"""Log-likelihoods of texts against loops that ask the model for one piece at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import use_models

from lmctl.core.errors import ConfigError
from lmctl.inference.length_batches import by_length
from lmctl.inference.likelihood import causal, masked, texts
from lmctl.inference.load import load, model_folder
from lmctl.inference.stride_windows import joined, windows
from lmctl.runner.places import Cpu

LINES = ["the cat sits on the mat .", "a", "", "the dog runs , the red dog runs .", "b c d e f g h"]


def next_logprob(loaded, before: list[int], piece: int) -> float:
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([before])).logits[0, -1]
    return float(logits.double().log_softmax(-1)[piece])


def test_families_are_recognised(decoder, encoder, translator, tmp_path):
    classifier = use_models.opened(use_models.bert(tmp_path, "BertForSequenceClassification", num_labels=3))
    families = [loaded.family for loaded in (decoder, encoder, translator, classifier)]
    assert families == ["decoder", "encoder", "seq2seq", "encoder"]
    assert [loaded.classifies for loaded in (decoder, encoder, translator, classifier)] == [False, False, False, True]
    assert list(classifier.labels) == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize("rows", [1, 3])
def test_causal_likelihood_is_that_of_one_piece_after_another(decoder, rows):
    found = list(causal(decoder, decoder.pieces(LINES), rows, 64, 32))
    for line, scores in zip(LINES, found, strict=True):
        ids = [3, *decoder.pieces([line])[0], 3]
        slow = [next_logprob(decoder, ids[:place], ids[place]) for place in range(1, len(ids))]
        np.testing.assert_allclose(scores, slow, rtol=1e-4, atol=1e-5)


def test_long_texts_are_read_in_windows_with_context(decoder):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, use_models.SIZE, 41).tolist()
    length, stride = 12, 5
    [found] = causal(decoder, [ids], 4, length, stride)
    whole, slow = [3, *ids, 3], []
    for place in range(1, len(whole)):
        # The first window predicts `length` pieces; each later one `stride` more, the last one what is left.
        number = max(0, -(-(place - length) // stride))
        last = min(length + number * stride, len(whole) - 1)
        slow.append(next_logprob(decoder, whole[last - length : place], whole[place]))
    np.testing.assert_allclose(found, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "stride"), [(4, 4), (4, 1), (7, 3), (100, 50)])
@pytest.mark.parametrize("size", [2, 5, 9, 30])
def test_every_piece_is_predicted_once(length, stride, size):
    cut = list(windows(range(size), length, stride))
    assert [piece for window in cut for piece in window.ids[window.skip + 1 :]] == list(range(1, size))
    assert all(len(window.ids) <= length + 1 for window in cut)
    assert [window.first for window in cut] == [True] + [False] * (len(cut) - 1)


def test_documents_are_joined_by_what_ends_them():
    assert list(joined([[5, 6], [7]], begin=2, end=3)) == [2, 5, 6, 3, 7, 3]


@pytest.mark.parametrize("rows", [1, 4])
def test_pseudo_likelihood_masks_one_piece_at_a_time(encoder, rows):
    found = list(masked(encoder, LINES, rows, 64))
    for line, scores in zip(LINES, found, strict=True):
        ids, slow = [2, *encoder.pieces([line])[0], 3], []
        for place in range(1, len(ids) - 1):
            gap = [4 if i == place else piece for i, piece in enumerate(ids)]
            with torch.no_grad():
                logits = encoder.model(input_ids=torch.tensor([gap])).logits[0, place]
            slow.append(float(logits.double().log_softmax(-1)[ids[place]]))
        np.testing.assert_allclose(scores, slow, rtol=1e-4, atol=1e-5)


def test_texts_take_the_way_of_their_model(decoder, encoder):
    lines = LINES[:2]
    one = [float(x.sum()) for x in texts(decoder, lines, 2, 64)]
    assert one == pytest.approx([float(x.sum()) for x in causal(decoder, decoder.pieces(lines), 2, 64, 32)])
    other = [len(x) for x in texts(encoder, lines, 2, 64)]
    assert other == [7, 1]


def test_text_that_spells_a_special_piece_is_text(decoder, encoder):
    assert decoder.pieces(["a [SEP] b"]) == [[5, 1, 1, 1, 6]]
    assert encoder.framed(["a [MASK] b"])["input_ids"].tolist() == [[2, 5, 1, 1, 1, 6, 3]]


@pytest.mark.parametrize("same", [False, True])
def test_batches_answer_in_order(same):
    words = [WORD * (number * 7 % 5) for number, WORD in enumerate("abcdefghij" * 30)]
    seen = []

    def answer(batch):
        seen.append([len(word) for word in batch])
        return [word.upper() for word in batch]

    assert list(by_length(words, len, 4, answer, len if same else None)) == [word.upper() for word in words]
    assert max(map(len, seen)) == 4
    if same:
        assert all(len(set(batch)) == 1 for batch in seen)


def test_a_run_is_found_by_its_directory_and_a_model_without_a_head_is_refused(tmp_path):
    use_models.bert(tmp_path / "model", "BertModel")
    assert model_folder(str(tmp_path)) == str(tmp_path / "model")
    with pytest.raises(ConfigError, match="BertModel has no head"):
        load(str(tmp_path), Cpu())
