"""Sources of documents: layouts of text files, the held-out split by content, `data=text` and `data=pydocs`."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest
from command import elsewhere
from hypothesis import given
from hypothesis import strategies as st

from lmctl.core.errors import DataError
from lmctl.data.base import Source
from lmctl.data.pydocs import PyDocs
from lmctl.data.split import by_content
from lmctl.data.text import TextFiles


def put(folder: Path, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return str(folder)


def everything(source: Source) -> list[list[str]]:
    return [*source.documents("train"), *source.documents("valid")]


def both(source: Source) -> set[tuple[str, ...]]:
    return set(map(tuple, everything(source)))


BERT_STYLE = "A first one here.\nThen another one.\n\nSecond text starts.\nIt goes on.\nIt ends.\n\nThird one.\nBye.\n"


def test_groups_of_sentences_between_blank_lines_are_documents_even_in_several_files(tmp_path):
    path = put(tmp_path, one=BERT_STYLE)
    Path(path, "two.txt.gz").write_bytes(gzip.compress("他来了。\n她走了。\n\n下雨了。\n天黑了。\n".encode()))
    source = TextFiles(path)
    assert both(source) == {
        ("A first one here.", "Then another one."),
        ("Second text starts.", "It goes on.", "It ends."),
        ("Third one.", "Bye."),
        ("他来了。", "她走了。"),
        ("下雨了。", "天黑了。"),
    }
    assert "2 files" in source.describe()
    assert "blank_line_between_documents (detected)" in source.describe()


def test_files_with_paragraphs_are_documents_and_wrapped_lines_are_joined(tmp_path):
    path = put(
        tmp_path,
        a="A Title\n\nThis paragraph is wrapped in the\nmiddle. It has two\nsentences.\n\nAnother\none here.\n",
        b="第一段文字很\n长。第二句\n也长。\n\n结束。\n",
    )
    assert both(TextFiles(path)) == {
        ("A Title", "This paragraph is wrapped in the middle.", "It has two sentences.", "Another one here."),
        ("第一段文字很长。", "第二句也长。", "结束。"),
    }


def test_one_file_with_blank_lines_and_headings(tmp_path):
    path = put(
        tmp_path,
        wiki=" = Title = \n \n = = Part = = \n \n One . Two is longer . \n Three . \n \n = Next = \n \n Four .\n",
    )
    assert both(TextFiles(path)) == {
        ("= Title =", "= = Part = =", "One .", "Two is longer .", "Three ."),
        ("= Next =", "Four ."),
    }


def test_one_file_without_blank_lines_has_a_document_per_line(tmp_path):
    path = put(tmp_path, lines="First line. With two.\nSecond line\nThird line\n")
    source = TextFiles(path)
    assert both(source) == {("First line.", "With two."), ("Second line",), ("Third line",)}
    assert "one_document_per_line (detected)" in source.describe()


def test_verses_without_punctuation_stay_lines(tmp_path):
    path = put(tmp_path, a="so much depends\nupon\n\na red wheel\nbarrow\n", b="glazed with rain\nwater\n")
    assert both(TextFiles(path)) == {
        ("so much depends", "upon", "a red wheel", "barrow"),
        ("glazed with rain", "water"),
    }


def test_what_is_given_is_not_detected(tmp_path):
    path = put(tmp_path / "here", one=BERT_STYLE, two="Four is here. Five too.\n")
    assert len(everything(TextFiles(path, layout="one_document_per_file"))) == 2
    assert len(everything(TextFiles(path, layout="one_document_per_line"))) == 8
    assert ("Four is here. Five too.",) in both(TextFiles(path, sentences="line"))
    assert ("Four is here.", "Five too.") in both(TextFiles(path, sentences="split"))
    elsewhere = put(tmp_path / "elsewhere", called=BERT_STYLE, otherwise="Four is here. Five too.\n")
    assert TextFiles(elsewhere).fingerprint() == TextFiles(path).fingerprint()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"path": ""}, "path"),
        ({"layout": "one_document_per_lin"}, "layout"),
        ({"sentences": "words"}, "sentences"),
        ({"valid_share": 0.0}, "valid_share"),
        ({"valid_share": 1.0}, "valid_share"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        TextFiles(**{"path": "x", **options})
    if word == "valid_share":
        with pytest.raises(ValueError, match=word):
            PyDocs(**options)


documents = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), min_size=2, max_size=30)


@given(documents, st.floats(0.01, 0.99))
def test_no_text_is_on_both_sides_and_none_is_lost(corpus, share):
    different = list(dict.fromkeys(" ".join(document) for document in corpus))
    if len(different) < 2:
        return
    parts = by_content(lambda: iter(corpus), share, "corpus")
    train, valid = ([" ".join(document) for document in parts.read(split)] for split in ("train", "valid"))
    assert sorted(train + valid) == sorted(different)
    assert min(2 if len(different) >= 4 else 1, len(different) - 1) <= len(valid) == parts.held_out
    assert train == [text for text in different if text in set(train)], "the order of the corpus is kept"
    assert parts.duplicates == len(corpus) - len(different)


def test_the_split_does_not_depend_on_order_or_white_space():
    corpus = [[f"text {number}"] for number in range(100)]
    spaced = [["text  ", document[0].split()[1]] for document in reversed(corpus)]
    held = [" ".join(document) for document in by_content(lambda: iter(corpus), 0.1, "corpus").read("valid")]
    again = [" ".join(document) for document in by_content(lambda: iter(spaced), 0.1, "corpus").read("valid")]
    assert sorted(held) == sorted(" ".join(text.split()) for text in again)
    assert 8 <= len(held) <= 13


def halves(corpus, share=0.05):
    parts = by_content(lambda: iter(corpus), share, "corpus")
    return [[" ".join(document) for document in parts.read(split)] for split in ("train", "valid")]


def words(count: int, seed: int, letters: str = "abcdefgh") -> list[list[str]]:
    rng = random.Random(seed)
    return [
        [" ".join("".join(rng.choices(letters, k=5)) for _ in range(rng.randrange(3, 30))) for _ in range(4)]
        for _ in range(count)
    ]


def test_text_that_is_added_moves_no_other_text_to_the_other_side():
    corpus = words(2000, 0)
    train, valid = halves(corpus)
    for added in (words(200, 1), words(1, 2), words(2000, 3)):
        more_train, more_valid = halves([*added, *corpus])
        assert set(train) <= set(more_train)
        assert set(valid) <= set(more_valid)


@given(st.lists(st.integers(1, 400), min_size=20, max_size=60), st.floats(0.03, 0.3), st.integers(0, 9))
def test_the_held_out_share_is_of_the_text(lengths, share, seed):
    """A quarter of the share at least; at most a quarter too much and one document of twice the share, but for the two
    documents that must be."""
    corpus = [[f"{seed} {number} " + "x" * length] for number, length in enumerate(lengths)]
    train, valid = halves(corpus, share)
    held, total = sum(map(len, valid)), sum(map(len, train + valid))
    assert held >= share * total / 4
    assert held <= 3.25 * share * total or len(valid) <= 2


@pytest.mark.parametrize("others", [2, 3, 10, 30])
def test_a_document_that_is_most_of_the_text_is_not_held_out_but_told(others: int):
    for seed in range(10):
        corpus = [[f"{seed} giant " * 20_000], *words(others, seed)]
        train, valid = halves(corpus)
        assert corpus[0][0] in train
        assert valid
    parts = by_content(lambda: iter([["a " * 50], ["b " * 45]]), 0.05, "corpus")
    assert "1 held out, 47.4% of the text" in str(parts)
    assert "of the text" not in str(by_content(lambda: iter(words(2000, 0)), 0.05, "corpus"))


def test_documents_that_differ_in_case_only_are_on_one_side():
    corpus = words(300, 0)
    shouted = [[sentence.upper() for sentence in document] for document in corpus]
    train, valid = halves([*corpus, *shouted], 0.1)
    assert len(train) + len(valid) == 600
    assert not {text.lower() for text in train} & {text.lower() for text in valid}


def test_of_one_document_the_last_sentences_are_held_out(tmp_path):
    text = " ".join(f"Sentence number {n}." for n in range(40))
    path = put(tmp_path, only=text)
    source = TextFiles(path)
    assert list(source.documents("valid")) == [["Sentence number 38.", "Sentence number 39."]]
    assert len(next(source.documents("train"))) == 38
    with pytest.raises(DataError, match="one sentence"):
        everything(TextFiles(put(tmp_path / "short", only="A single sentence.\n")))


def test_a_validation_text_of_its_own(tmp_path):
    train = put(tmp_path / "train", lines="one\ntwo\nthree\nthree\n")
    valid = put(tmp_path / "valid", lines="two\nfour\n")
    source = TextFiles(train, valid_path=valid)
    assert list(source.documents("train")) == [["one"], ["three"]]
    assert list(source.documents("valid")) == [["two"], ["four"]]
    assert "2 duplicates" in source.describe()
    with pytest.raises(DataError, match="no document that is not in"):
        everything(TextFiles(train, valid_path=train))


def test_no_text_at_all_names_the_file(tmp_path):
    for text in ("", " \n\n"):
        with pytest.raises(DataError, match="empty"):
            everything(TextFiles(put(tmp_path, nothing=text) + "/nothing.txt"))


@pytest.fixture(scope="module")
def pydocs() -> PyDocs:
    """It parses the standard library once."""
    return PyDocs()


def test_pydocs_is_prose(pydocs):
    train, valid = (list(pydocs.documents(split)) for split in ("train", "valid"))
    sentences = [sentence for document in train + valid for sentence in document]
    assert len(train) > 300
    assert len(valid) > 10
    assert f"{len(train) + len(valid):,} documents ({len(valid)} held out" in pydocs.describe()
    assert sum(map(len, sentences)) > 1_000_000
    assert all(sentence == " ".join(sentence.split()) and ">>>" not in sentence for sentence in sentences)
    assert any(document[0].startswith('The "with" statement') for document in train + valid)


def digest(source: PyDocs) -> str:
    return hashlib.sha256(repr((list(source.documents("train")), source.fingerprint())).encode()).hexdigest()


def test_pydocs_is_the_same_in_every_process_and_imports_nothing_of_what_it_reads(pydocs, tmp_path):
    read = {"antigravity", "turtle", "this", "pydoc_data.topics", "tkinter"}
    code = f"import sys, test_sources as t; print(t.digest(t.PyDocs()), [*({read} & sys.modules.keys())])"
    assert elsewhere(code, folder=Path(__file__).parent, cache=tmp_path) == f"{digest(pydocs)} []\n"


def test_an_interpreter_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError) as caught:
        everything(PyDocs())
    assert "data=text" in str(caught.value.hint)


def test_verbatim_text_is_every_character_of_the_file(tmp_path):
    text = "FIRST:\n  Before  we go,\thear me.\n\n\nALL:\nSpeak, speak.\n"
    path = put(tmp_path, play=text)
    source = TextFiles(path, layout="verbatim", valid_share=0.3)
    [train], [valid] = source.documents("train"), source.documents("valid")
    assert "".join([*train, *valid]) == text
    assert all(line.endswith("\n") for line in [*train, *valid])
