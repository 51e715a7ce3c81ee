"""`suite=perplexity` against the model's own loss: per token, word and byte, in every layout, alone and as a stream."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import use_models
from row_files import both, halves, write_rows
from suite_jobs import DOCUMENTS, job

from lmctl.core.batch import DocumentWithText, Row, whole_text
from lmctl.data.jsonl import JsonLines
from lmctl.data.table import Table
from lmctl.data.text import TextFiles
from lmctl.inference.suites import job as suites


def own_loss(loaded: Any, ids: list[int]) -> float:
    """Sum over all predictions of the model's own mean loss."""
    row = torch.tensor([ids])
    with torch.no_grad():
        return float(loaded.model(input_ids=row, labels=row).loss) * (len(ids) - 1)


def test_perplexity_is_the_models_own_loss(decoder, tmp_path):
    figures = suites.run("perplexity", job(decoder, DOCUMENTS, tmp_path))
    texts = [" ".join(row.texts) for row in DOCUMENTS]
    framed = [[3, *ids, 3] for ids in decoder.pieces(texts)]
    nats, tokens = sum(own_loss(decoder, ids) for ids in framed), sum(len(ids) - 1 for ids in framed)
    number = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    assert figures["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert figures["perplexity_per_token"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert figures["perplexity_per_word"] == pytest.approx(math.exp(nats / number), rel=1e-4)
    assert figures["perplexity_per_word_and_end"] == pytest.approx(math.exp(nats / (number + 4)), rel=1e-4)
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert (figures["tokens"], figures["words"], figures["bytes"], figures["documents"]) == (tokens, number, size, 4)


def test_every_sentence_is_ended_where_the_model_learnt_that(decoder, tmp_path):
    """As in the tables of WikiText-2, whose `<eos>` behind every line is a word."""
    note = {"objective": "StreamedLM", "reads": "documents", "label_kind": None, "labels": [], "end_of": "sentence"}
    figures = suites.run("perplexity", job(replace(decoder, tasks={"lm": note}), DOCUMENTS, tmp_path))
    sentences = [[ids for ids in decoder.pieces(row.texts)] for row in DOCUMENTS]  # noqa: C416
    framed = [[3, *(piece for ids in document for piece in [*ids, 3])] for document in sentences]
    nats = sum(own_loss(decoder, ids) for ids in framed)
    number = sum(len(text.split()) for row in DOCUMENTS for text in row.texts)
    ends = sum(len(row.texts) for row in DOCUMENTS)
    assert ends > len(DOCUMENTS)
    assert figures["ends"] == ends
    assert figures["tokens"] == sum(len(ids) - 1 for ids in framed)
    assert figures["perplexity_per_word_and_end"] == pytest.approx(math.exp(nats / (number + ends)), rel=1e-4)


TEXTS = {
    "english": ["The cat sits.  A dog runs!\nIt is late.", "One sentence. Two of them."],
    "chinese": ["你好世界。今天天气很好。\n你好！", "天气很好。 The cat sits. 今天。"],
    "headings": ["= The cat =\nA dog runs. It is late.\nAnd so on.", "= B =\nOne. Two. Three."],
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", ["blank_line_between_documents", "one_document_per_file", "table", "jsonl", "valid"])
def test_bits_per_byte_are_those_of_the_text_as_it_stands(decoder, tmp_path, name, kind):
    """The sum of nats over ln 2 and the bytes of UTF-8, as EleutherAI's harness defines it, by a loop over the texts
    themselves: what stands between sentences is read and counted, and Chinese is given no spaces."""
    texts, data = TEXTS[name], tmp_path / "data"
    data.mkdir()
    if kind in ("table", "jsonl"):
        rows = [{"id": 1, "text": text} for text in texts]
        suffix, made = {"table": ("csv", Table), "jsonl": ("jsonl", JsonLines)}[kind]
        source: Any = made(write_rows(data / f"a.{suffix}", rows))
    elif kind == "one_document_per_file":
        for number, text in enumerate(texts):
            (data / f"{number}.txt").write_text(text + "\n")
        source = TextFiles(str(data), layout=kind)
    elif kind == "valid":  # of a single document its last sentences are held out
        (data / "a.txt").write_text(texts[0] + "\n")
        source = TextFiles(str(data), layout="one_document_per_file", valid_share=0.34)
        texts = [whole_text(row.texts) for half in halves(source) for row in half]
        assert all(text in TEXTS[name][0] for text in texts)
        assert sum(len(text.split()) for text in texts) == len(TEXTS[name][0].split())
    else:
        (data / "a.txt").write_text("\n\n".join(texts) + "\n")
        source = TextFiles(str(data), layout=kind)
    figures = suites.run("perplexity", job(replace_pieces(decoder), both(source), tmp_path))
    framed = [[3, *(5 + byte % 27 for byte in text.encode()), 3] for text in texts]
    nats, size = sum(own_loss(decoder, ids) for ids in framed), sum(len(text.encode()) for text in texts)
    assert figures["bytes"] == size
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def replace_pieces(loaded: Any) -> Any:
    """The same model reading bytes, so that nothing of a text is lost on it."""

    class Bytes(type(loaded)):  # type: ignore[misc]
        def pieces(self, texts: list[str]) -> list[list[int]]:
            return [[5 + byte % 27 for byte in text.encode()] for text in texts]

    return Bytes(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})


def test_noise_leaves_what_stands_between_sentences_alone():
    text = DocumentWithText(["The cat sits.", "A dog."], "The  cat sits.\n\nA dog.\n")
    assert whole_text(text.rewritten(["the", "a dig"])) == "the\n\na dig\n"
    assert (whole_text(text[:1]), whole_text(text[1:])) == ("The  cat sits.", "A dog.")
    assert whole_text(["今天。", "很好。", "Yes.", "No."]) == "今天。很好。 Yes. No."
    assert whole_text(["a line\n", "\n", "b\n"]) == "a line\n\nb\n"


def test_a_stream_lets_documents_see_those_before(decoder, tmp_path):
    figures = suites.run("perplexity", job(decoder, DOCUMENTS, tmp_path, stream=True))
    pieces = decoder.pieces([" ".join(row.texts) for row in DOCUMENTS])
    ids = [3, *(piece for document in pieces for piece in (*document, 3))]
    assert figures["loss"] == pytest.approx(own_loss(decoder, ids) / (len(ids) - 1), rel=1e-5)


class Counter(torch.nn.Module):
    """A recurrent model: its state is how many pieces it has read, and it is surer the more it has."""

    def forward(self, input_ids, state=None, use_cache=True):
        start = 0 if state is None else state
        places = start + torch.arange(1, input_ids.shape[1] + 1)
        logits = torch.zeros(1, input_ids.shape[1], use_models.SIZE)
        logits[0, :, 5] = places.float()
        return type("Output", (), {"logits": logits, "state": start + input_ids.shape[1]})()


def test_a_recurrent_model_carries_its_state(decoder, tmp_path):
    counter = Counter()
    counter.config, counter.device = decoder.model.config, torch.device("cpu")
    loaded = replace(decoder, model=counter)
    rows = [Row(["a a a a a a a a a a a a"]), Row(["a a"])]
    figures = suites.run("perplexity", job(loaded, rows, tmp_path, seq_len=8))
    places, ends = np.arange(1.0, 17), np.isin(np.arange(1, 17), (13, 16))
    nats = np.log(np.exp(places) + use_models.SIZE - 1) - np.where(ends, 0, places)
    assert figures["loss"] == pytest.approx(nats.mean(), rel=1e-5)
    assert "state" in figures["context"]
