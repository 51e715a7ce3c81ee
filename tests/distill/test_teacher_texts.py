"""What a teacher writes in place of the data's own texts: by whom, from what, once, and resumed."""

from __future__ import annotations

import json

import pytest
from command import metrics, succeed, summary
from taught import DOCUMENTS, PAIRS, save_teacher, silent
from use_models import Rows, gpt2, marian

from lmctl.core import signals
from lmctl.core.errors import ConfigError, Stopped
from lmctl.distill import teacher_texts as texts
from lmctl.distill.teacher_texts import written
from lmctl.distill.texts import TeacherTexts
from lmctl.inference.decode import complete, translate
from lmctl.inference.load import load
from lmctl.model.transformer_mt import TransformerMT
from lmctl.runner.places import Cpu


def train(folder, source, how, model, teacher=1, seed=1):
    """What `model` writes in place of the training rows; `teacher` is its fingerprint."""
    found = written(folder, source, how, {"t": teacher}, seed, model if callable(model) else lambda: model, silent)
    return found, [row.texts for row in found.rows("train")]


def never():
    raise AssertionError("loaded although everything is written")


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return load(str(marian(tmp_path_factory.mktemp("mt"))), Cpu())


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return load(str(gpt2(tmp_path_factory.mktemp("lm"))), Cpu())


def test_translations_are_those_of_translate_and_validation_stays(tmp_path, translator):
    source = Rows("parallel", PAIRS, PAIRS[:1])
    how = TeacherTexts(beams=2, rows=3)
    found, rows = train(tmp_path, source, how, translator)
    wanted = list(translate(translator, [pair[0] for pair in PAIRS], 3, 2, 1.0, None))
    assert rows == [[pair[0], answer or pair[1]] for pair, answer in zip(PAIRS, wanted, strict=True)]
    assert [row.texts for row in found.rows("valid")] == PAIRS[:1]
    assert found.yields == "parallel"


def test_written_once_for_the_same_teacher_data_and_way(tmp_path, translator):
    source, how = Rows("parallel", PAIRS, PAIRS[:1]), TeacherTexts(beams=1)
    first, again = (train(tmp_path, source, how, model)[0] for model in (translator, never))
    assert first.path == again.path
    assert first.fingerprint() == again.fingerprint()
    for other, teacher, seed in ((TeacherTexts(beams=2), 1, 1), (how, 2, 1), (how, 1, 2)):
        with pytest.raises(AssertionError, match="loaded although"):
            train(tmp_path, source, other, never, teacher, seed)
    json.dumps(dict(first.fingerprint()))


def test_running_text_goes_on_from_its_own_beginnings(tmp_path, writer):
    how = TeacherTexts(sample=False, prompt=3, length=8, rows=2)
    _, found = train(tmp_path, Rows("documents", DOCUMENTS), how, writer)
    rows = [text for (text,) in found]
    beginnings = ["the cat sits", "dog runs on", "blue cat", "a b c", "i j k"]
    assert [any(row.startswith(beginning) for row in rows) for beginning in beginnings] == [True] * 5
    # The same as `generate` gives for the same words (its tokenizer puts the beginning before them).
    (alone,) = complete(writer, ["the cat sits"], 1, 5, do_sample=False)
    assert rows[0] == alone


def test_what_is_drawn_depends_on_the_seed_alone(tmp_path, writer):
    source, how = Rows("documents", DOCUMENTS), TeacherTexts(prompt=2, length=12, rows=4)
    (_, a), (_, b), (_, c) = (
        train(tmp_path / str(n), source, how, writer, seed=seed) for n, seed in enumerate((1, 1, 2))
    )
    assert a == b != c


def test_an_interrupted_teacher_goes_on_where_it_was(tmp_path, translator, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK", 2)
    source, how, said = Rows("parallel", PAIRS), TeacherTexts(beams=1, max_new_tokens=5), []

    def load_once():
        if said:  # the second block
            raise signals.Interrupted("SIGTERM")
        return translator

    with pytest.raises(Stopped, match="SIGTERM while the teacher was writing; 2 rows are kept"):
        written(tmp_path, source, how, {"t": 1}, 1, load_once, said.append)
    asked = []
    _, rows = train(tmp_path, source, how, lambda: asked.append(1) or translator)
    assert len(asked) == 1
    monkeypatch.setattr(texts, "BLOCK", 1000)
    assert rows == train(tmp_path / "other", source, how, translator)[1]


def test_prompts_must_leave_room(tmp_path, writer):
    with pytest.raises(ConfigError, match=r"distill.terms.sequence.prompt=5000 fills all \d+ positions"):
        train(tmp_path, Rows("documents", DOCUMENTS), TeacherTexts(prompt=5000, length=6000), writer)


@pytest.mark.parametrize(
    "wrong", [{"beams": 0}, {"prompt": 9, "length": 9}, {"top_p": 0.0}, {"top_k": -1}, {"temperature": 0.0}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=r"must|leaves nothing|is a probability"):
        TeacherTexts(**wrong)


@pytest.mark.slow
def test_a_student_of_translation_by_command(tmp_path):
    """On the teacher's texts, and on its answers about them; found again by the next run, which ends the same."""
    spec = TransformerMT(1, 1, 32, 2, 64, max_positions=64)
    save_teacher(tmp_path / "teacher", spec, {"lm": 85})
    lines = [" ".join(f"w{(7 * row + place) % 60}" for place in range(3 + row % 5)) for row in range(60)]
    for name in ("source", "target"):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    words = ["teacher=teacher", "mix=translate", "data=parallel", "data.source=source.txt", "data.target=target.txt"]
    words += ["distill=[sequence,logits]", "distill.terms.sequence.beams=1", "distill.terms.sequence.max_new_tokens=6"]
    words += ["budget.steps=2", "log.every=1", "runner=cpu", "distill.control=false", "batch.seq_len=32"]
    first = succeed("distill", *words, "name=first", "run_dir=first", cwd=tmp_path)
    assert "teacher's texts: cache miss: written" in first.stdout + first.stderr
    again = succeed("distill", *words, "name=again", "run_dir=again", cwd=tmp_path)
    assert "teacher's texts: cache hit" in again.stdout + again.stderr
    assert summary(tmp_path / "first")["model_sha256"] == summary(tmp_path / "again")["model_sha256"]
    trained = next(line for line in metrics(tmp_path / "first") if line["split"] == "train")
    assert "loss/translate/distill_logits" in trained
    (file,) = (tmp_path / "cache/texts").glob("*/texts.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {source for source, _ in rows} < set(lines)  # without those that are held out
    assert all(len(target.split()) <= 6 for _, target in rows)
