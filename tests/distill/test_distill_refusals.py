"""What cannot be taught is refused before any work, in one or two plain lines that say what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_teachers import MODELS, taught
from small_teachers import teacher as teacher_of

from lmctl.cli.main import main
from lmctl.core.errors import ConfigError
from lmctl.distill.hidden import Hidden
from lmctl.distill.minilm import MiniLM
from lmctl.train.trainer import Trainer

WHOLE = {
    "teacher_cache=ues": "error: teacher_cache=ues is none of its values; did you mean use?",
    "teacher_cache=auto maskings=0": "error: maskings must be above 0, got 0",
    "teacher_cache=auto distill=hidden": "error: teacher_cache=auto: hidden looks into the teacher, and only its "
    "answers are kept\n  teacher_cache=off, or distill=logits",
    "maskings=2 data=hub data.path=x data.streaming=true": "error: maskings=2: mix.tasks.corpus is streamed, so its "
    "rows do not come again\n  data.streaming=false, or maskings=null",
    "student.from_teacher=unifrom model.layers=2": "error: student.from_teacher must be uniform, first, last or a list "
    "of layers; did you mean uniform?",
    "student.from_teacher=[0a3]": "error: student.from_teacher must be uniform, first, last or a list of layers, got "
    "['0a3']",
    "student.from_teacher=3": "error: student.from_teacher must be uniform, first, last or a list of layers, got 3",
    "student.from_teacher=[2,1]": "error: student.from_teacher lists layers from 0 on, each above the one before, got "
    "[2, 1]",
    "student.from_teacher=uniform": "error: 'model.layers' is required\n  how many of the teacher's layers the student "
    "has",
    "student.from_teacher=uniform model.layers=9": "error: student.from_teacher=uniform: the student has 9 layers and "
    "the teacher only 3\n  nearest: model.layers=3",
    "student.from_teacher=[0,2] model.layers=3": "error: student.from_teacher=[0,2] names 2 layers, and the student "
    "has 3\n  nearest: model.layers=2",
    "student.from_teacher=[0,7]": "error: student.from_teacher=[0,7]: the teacher has no layer 7, its 3 are counted "
    "from 0",
}
"""Words besides those that say who teaches what, and all that is answered."""
BEGINNINGS = {
    "distill=none": "error: teacher={teacher}: with distill=none nothing is learnt",
    "mix=clm model=gpt2_tiny": "error: teacher={teacher} is an encoder, and mix.tasks.corpus trains a",
    "distill=logit": "error: no option 'logit' in group 'distill'; did you mean",
    "distill.terms.logits.temprature=2": "did you mean distill.terms.logits.temp",
    "distill.terms.logits.temperature=0": "temperature must be above 0, got 0",
    "distill=on_policy": "on_policy is about texts that are written, and an encoder writes none",
    "distill=on_policy teacher_cache=auto": "teacher_cache=auto: with on_policy the teacher is asked about texts that "
    "nobody knows beforehand",
    "distill=on_policy distill.terms.on_policy.share=2": "error: distill.terms.on_policy.share is a probability, got 2",
    "distill=sequence": "sequence is about texts that are written",
}


@pytest.mark.parametrize("words", [*WHOLE, *BEGINNINGS])
def test_mistakes_end_before_any_work(words, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["distill", f"teacher={teacher}", "mix=mlm", "batch.seq_len=64", *words.split()]) == 2
    said = capsys.readouterr().err.rstrip("\n")
    assert said == WHOLE[words] if words in WHOLE else BEGINNINGS[words].format(teacher=teacher) in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("distill", "error: teacher is required: a run, a model directory or a hub id, as teacher=..."),
        ("distill teacher=runs/nowhere", "error: teacher=runs/nowhere: no such directory"),
        ("distill teacher=runs/nowhere model=lstm_tiny", "error: teacher=runs/nowhere: no such directory"),
        ("train distill=logits", "error: distill: there is no teacher"),
    ],
)
def test_nobody_teaches(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("task", "big", "changes", "words", "remedy"),
    [
        ("mlm", "gpt2", {}, "is a decoder, and mix.tasks.corpus trains an encoder", "model=gpt2_tiny mix=clm"),
        ("translate", "bert", {}, "is an encoder, and mix.tasks.corpus trains an encoder with a decoder", "mlm"),
        (
            "mlm",
            "bert",
            {"seq_len": 65, "model": replace(MODELS["bert"], max_positions=99)},
            "longer than the 64",
            "64",
        ),
        ("mlm", "bert", {"lesson": {"hidden": Hidden()}, "compile": True}, "compiled code", "compile=false"),
    ],
)
def test_pairs_that_cannot_be_are_refused_before_any_work(teachers, task, big, changes, words, remedy):
    place = teacher_of(teachers, big, {"gpt2": "clm", "bert": "mlm"}[big])
    with pytest.raises(ConfigError, match=words) as error:
        taught(task, place, **changes)
    assert remedy in error.value.hint


def test_only_one_teacher_can_be_looked_into(teachers):
    own, _ = taught("mlm", teacher_of(teachers, "bert", "mlm"), {"hidden": Hidden()})
    with pytest.raises(ConfigError, match="looks into the teacher, and there are 2"):
        replace(own, teacher=own.teacher * 2)


def test_a_teacher_of_other_tasks_labels_or_pieces_is_refused(alone, teachers, tmp_path):
    with pytest.raises(ConfigError, match=r"not trained for the tasks of this run: it has no .*classifier") as error:
        Trainer(*taught("class", teacher_of(teachers, "bert", "mlm")), alone)
    assert "distill=hidden" in error.value.hint
    with pytest.raises(ConfigError, match=r"has the labels a, b, c, and teacher=.* c, b, a"):
        Trainer(*taught("class", teacher_of(tmp_path, "bert", "class", ["c", "b", "a"])), alone)
    place = Path(teacher_of(tmp_path, "bert", "mlm"))
    text = (place / "tokenizer.json").read_text().replace('"w59"', '"other"')
    (place / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match="vocabularies differ") as error:
        Trainer(*taught("mlm", str(place)), alone)
    assert "tokenizer=pretrained" in error.value.hint


def test_a_state_that_a_student_lacks_is_refused(alone, teachers):
    place = teacher_of(teachers, "gpt2", "clm")
    changes = {"model": MODELS["lstm"]}
    with pytest.raises(ConfigError, match="has no attention maps"):
        Trainer(*taught("clm", place, {"minilm": MiniLM()}, **changes), alone)
    place = teacher_of(teachers, "marian", "translate")
    with pytest.raises(ConfigError, match="cannot be looked into"):
        Trainer(*taught("translate", place, {"hidden": Hidden()}, model=MODELS["rnn_mt"]), alone)
