"""A student that begins with its teacher's layers, or reads other numbers than its teacher, in runs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import succeed, summary
from small import documents, tokenizer, vocabulary, weights
from taught import BIG, save_teacher, taught, trainer_of

from lmctl.config.schema import Budget, Student
from lmctl.core.errors import ConfigError
from lmctl.distill.none import NoTeacher
from lmctl.model.bert import Bert
from lmctl.model.pretrained import Pretrained
from lmctl.model.teacher_layers import TeacherLayers


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
    trainer = trainer_of(some)
    theirs = Pretrained(str(teacher)).load(vocabulary(), {"mlm": 85}).state_dict()
    ours = trainer.network.state_dict()
    for place, layer in enumerate([0, 2]):
        name = "model.bert.encoder.layer.%d.output.dense.weight"
        assert torch.equal(ours[name % place], theirs[name % layer])
    assert torch.equal(ours["model.cls.predictions.bias"], theirs["model.cls.predictions.bias"])
    assert "layers of the teacher: bert.encoder.layer 0, 2" in trainer.copied_layers
    assert len(list(trainer.steps())) == 5
    # The control begins there, too, and has no lesson; nor is the teacher kept.
    alone = trainer_of(taught(teacher, model=TeacherLayers(str(teacher), 2), student=Student([0, 2])))
    bare = trainer_of(taught(teacher, model=Bert(2, 32, 2, 64, max_positions=64), student=Student("uniform")))
    assert torch.equal(weights(alone), weights(bare))
    control = trainer_of(replace(some, distill=NoTeacher()))
    assert torch.equal(weights(control), weights(alone))
    assert not any("distill" in name for name in control.terms)


def test_pieces_under_other_numbers_make_no_difference(teacher, tmp_path):
    """Against the same teacher under the student's own numbers: the same start, losses and steps."""
    other = permuted(tmp_path / "permuted", teacher)
    model = Bert(2, 32, 2, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)
    runs = [
        trainer_of(taught(place, model=model, student=Student("first"), budget=Budget(steps=3)))
        for place in (teacher, other)
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert "the same 85 pieces under other numbers" in runs[1].copied_layers[-1]
    for one, two in zip(runs[0].steps(), runs[1].steps(), strict=True):
        for name in one.losses.totals:
            assert float(one.losses.totals[name]) == pytest.approx(float(two.losses.totals[name]), rel=1e-4)


def test_a_student_of_another_width_cannot_begin_there(teacher):
    with pytest.raises(ConfigError, match="is 85 x 16 in the student and 85 x 32 in the teacher"):
        trainer_of(taught(teacher, model=Bert(2, 16, 2, 64, max_positions=64), student=Student("uniform")))


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
