"""A student that begins with its teacher's layers, or reads other numbers than its teacher: in runs, and refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import succeed, summary
from small import documents, tokenizer, vocabulary
from taught import BIG, runner_of, save_teacher, taught, weights

from lmctl.cli.main import main
from lmctl.config.schema import Budget, Student
from lmctl.core.errors import ConfigError
from lmctl.distill.none import NoTeacher
from lmctl.model.bert import Bert
from lmctl.model.pretrained import Pretrained
from lmctl.model.teacher_layers import TeacherLayers


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


def permuted(folder: Path, teacher: Path) -> Path:
    """The same model under other numbers of pieces."""
    network = Pretrained(str(teacher)).load(vocabulary(), {"mlm": 85})
    numbers = list(range(85))
    random.Random(3).shuffle(numbers)  # piece i has the number numbers[i]
    old = torch.tensor(sorted(range(85), key=numbers.__getitem__))
    with torch.no_grad():
        table = network.model.get_input_embeddings().weight
        table.copy_(table[old])
        network.model.cls.predictions.bias.copy_(network.model.cls.predictions.bias[old])
    network.model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] = {piece: numbers[i] for piece, i in content["model"]["vocab"].items()}
    for added in content["added_tokens"]:
        added["id"] = numbers[added["id"]]
    file.write_text(json.dumps(content))
    return folder


def test_the_run_begins_with_the_teachers_layers(teacher):
    some = taught(teacher, model=TeacherLayers(str(teacher), 2), student=Student("uniform"))
    runner = runner_of(some)
    theirs = Pretrained(str(teacher)).load(vocabulary(), {"mlm": 85}).state_dict()
    ours = runner.network.state_dict()
    for place, layer in enumerate([0, 2]):
        name = "model.bert.encoder.layer.%d.output.dense.weight"
        assert torch.equal(ours[name % place], theirs[name % layer])
    assert torch.equal(ours["model.cls.predictions.bias"], theirs["model.cls.predictions.bias"])
    assert "layers of the teacher: bert.encoder.layer 0, 2" in runner.copied_layers
    assert len(list(runner.steps())) == 5
    # The control begins there, too, and has no lesson; nor is the teacher kept.
    alone = runner_of(taught(teacher, model=TeacherLayers(str(teacher), 2), student=Student([0, 2])))
    bare = runner_of(taught(teacher, model=Bert(2, 32, 2, 64, max_positions=64), student=Student("uniform")))
    assert torch.equal(weights(alone), weights(bare))
    control = runner_of(replace(some, distill=NoTeacher()))
    assert torch.equal(weights(control), weights(alone))
    assert not any("distill" in name for name in control.terms)


def test_pieces_under_other_numbers_make_no_difference(teacher, tmp_path):
    """Against the same teacher under the student's own numbers: the same start, losses and steps."""
    other = permuted(tmp_path / "permuted", teacher)
    model = Bert(2, 32, 2, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)
    runs = [
        runner_of(taught(place, model=model, student=Student("first"), budget=Budget(steps=3)))
        for place in (teacher, other)
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert "the same 85 pieces under other numbers" in runs[1].copied_layers[-1]
    for one, two in zip(runs[0].steps(), runs[1].steps(), strict=True):
        for name in one.losses.totals:
            assert float(one.losses.totals[name]) == pytest.approx(float(two.losses.totals[name]), rel=1e-4)


@pytest.mark.parametrize(
    ("model", "keep", "message"),
    [
        (Bert(2, 16, 2, 64, max_positions=64), "uniform", "is 85 x 16 in the student and 85 x 32 in the teacher"),
        (Bert(4, 32, 2, 64, max_positions=64), "last", "the student has 4 layers and the teacher only 3"),
    ],
)
def test_students_that_cannot_begin_there(teacher, model, keep, message):
    with pytest.raises(ConfigError, match=message):
        runner_of(taught(teacher, model=model, student=Student(keep)))


REFUSALS = {
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
    "student.from_teacher=[0,7]": "error: student.from_teacher=[0,7]: the teacher has no layer 7, its 3 are counted "
    "from 0",
}


@pytest.mark.parametrize("words", REFUSALS)
def test_refused_on_the_command_line(words, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["distill", f"teacher={teacher}", "mix=mlm", "batch.seq_len=64", *words.split()]) == 2
    assert capsys.readouterr().err.rstrip("\n") == REFUSALS[words]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_of_three_layers_by_command(tmp_path):
    save_teacher(tmp_path / "teacher")
    text = "\n\n".join("\n".join(sentences) for sentences in documents(20))
    (tmp_path / "text.txt").write_text(text + "\n")
    done = succeed(
        *("distill", "teacher=teacher", "mix=mlm", "data=text", "data.path=text.txt", "student.from_teacher=[0,2]"),
        *("budget.steps=2", "runner=cpu", "name=student", "run_dir=student", "batch.seq_len=32"),
        cwd=tmp_path,
    )
    assert "student: layers of the teacher: bert.encoder.layer 0, 2" in done.stderr + done.stdout
    config = json.loads((tmp_path / "student/model/config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (2, BIG.hidden)
    # The same student without a teacher begins there as well.
    control = tmp_path / summary(tmp_path / "student")["control"]["run_dir"]
    assert (control / "config.yaml").read_text().count("- 2") >= 1
    assert "gap_closed" in summary(tmp_path / "student")
