"""Every key of the group `distill` has an effect on what the student learns, or on what the teacher writes for it.

The keys are those of the dataclasses, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_teachers import taught, teacher
from taught import DOCUMENTS, PAIRS, silent
from use_models import Rows, gpt2, marian
from walked import Key, Other, classes, ids, keys_in, trained

from lmctl.config.build import build
from lmctl.config.compose import Composer
from lmctl.config.schema import Budget
from lmctl.distill.hidden import Hidden
from lmctl.distill.logits import Logits
from lmctl.distill.on_policy import OnPolicy
from lmctl.distill.teacher_texts import written
from lmctl.distill.texts import TeacherTexts
from lmctl.inference.load import Loaded, load
from lmctl.jobs import distilling
from lmctl.jobs.training import Training
from lmctl.model.bert import Bert
from lmctl.precision.int8_weights import Int8Weights
from lmctl.runner.places import Cpu
from lmctl.train import learner

HALF = [[0.0, 1.0], [1.0, 0.0]]
"""What falls over the budget, so that it matters what is between its points."""
TERMS = ("Logits", "Hidden", "Attention", "MiniLM", "OnPolicy")
LESSON: dict[Key, Other] = {
    ("Curriculum", "terms"): Other({"hidden": Hidden()}),
    ("Curriculum", "teacher_precision"): Other(Int8Weights()),
    ("Curriculum", "hard"): Other(0.1),
    ("Curriculum", "between"): Other("step", given={"hard": HALF}),
    **{(name, "weight"): Other(0.1) for name in TERMS[:4]},
    **{(name, "between"): Other("step", given={"weight": HALF}) for name in TERMS[:4]},
    ("Logits", "between"): Other("step", given={"temperature": [[0.0, 4.0], [1.0, 1.0]]}),
    ("Logits", "divergence"): Other("reverse"),
    ("Logits", "temperature"): Other(1.0),
    ("Logits", "beta"): Other(0.1, given={"divergence": "js"}),
    ("Logits", "top_k"): Other(3),
    ("Hidden", "metric"): Other("cosine"),
    ("Hidden", "layer_map"): Other([[1, 2]]),
    ("Hidden", "embeddings"): Other(True),
    ("Attention", "metric"): Other("scores"),
    ("Attention", "layer_map"): Other([[1, 2]]),
    ("Attention", "values"): Other(True),
    ("MiniLM", "relations"): Other(["query", "value"]),
    ("MiniLM", "relation_heads"): Other(2),
    ("MiniLM", "teacher_layer"): Other(3, given={"teacher_layer": 1}),  # the student has no third
    ("MiniLM", "student_layer"): Other(1),
    ("OnPolicy", "share"): Other(0.0),
    ("OnPolicy", "temperature"): Other(0.3),
    ("OnPolicy", "prompt"): Other(0.2),
    ("OnPolicy", "max_new_tokens"): Other(2),
}
DRAWN = {"prompt": 2, "length": 12, "rows": 4}
TEXTS: dict[Key, tuple[str, dict[str, Any], Any]] = {
    ("TeacherTexts", "beams"): ("translations", {"beams": 1}, 4),
    ("TeacherTexts", "length_penalty"): ("translations", {"beams": 4}, 0.0),
    ("TeacherTexts", "max_new_tokens"): ("translations", {}, 2),
    ("TeacherTexts", "sample"): ("running text", DRAWN, False),
    ("TeacherTexts", "temperature"): ("running text", DRAWN, 0.1),
    ("TeacherTexts", "top_k"): ("running text", DRAWN, 1),
    ("TeacherTexts", "top_p"): ("running text", DRAWN, 0.01),
    ("TeacherTexts", "prompt"): ("running text", DRAWN, 4),
    ("TeacherTexts", "length"): ("running text", DRAWN, 6),
    ("TeacherTexts", "rows"): ("running text", DRAWN, 1),
}
"""What the teacher writes, what else is set, the other value."""
NOT_HERE = {
    ("Curriculum", "control"): "see test_the_control_is_trained_if_it_is_wanted",
    ("Curriculum", "chunk_mb"): "changes no value, see test_chunks_are_as_large_as_they_may_be",
}
STUDENT = Bert(2, 32, 4, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)


def test_no_key_is_forgotten():
    assert {*LESSON, *TEXTS, *NOT_HERE} == keys_in("distill") - keys_in("precision")


def learnt(teachers: Path, name: str, settings: dict[str, Any], **changes: Any) -> bytes:
    """What three steps with a teacher leave."""
    rule, lesson = {}, None
    task, model = ("clm", "gpt2") if name == "OnPolicy" else ("mlm", "bert")
    if name == "OnPolicy":
        lesson = {"on_policy": OnPolicy(**{"share": 1.0} | settings), "logits": Logits(divergence="js")}
    elif name == "Curriculum":
        rule, lesson = dict(settings), settings.pop("terms", None)
        rule.pop("terms", None)
    else:
        lesson = {"term": classes("distill")[name](**settings)}
    changes |= {"hard": rule.pop("hard")} if "hard" in rule else {}
    if task == "mlm":
        changes["model"] = STUDENT
    return trained(
        *taught(task, teacher(teachers, model, task), lesson, rule=rule, budget=Budget(steps=3), **changes)
    ).weights


@pytest.mark.parametrize("key", LESSON, ids=ids)
def test_every_key_of_a_lesson_changes_what_is_learnt(key: Key, teachers: Path):
    other = LESSON[key]
    first = learnt(teachers, key[0], {**other.given})
    assert first != learnt(teachers, key[0], {**other.given, key[1]: other.value})


def test_the_same_lesson_is_learnt_alike(teachers: Path):
    """Otherwise nothing above would be proof of anything."""
    for name in ("Logits", "OnPolicy", "MiniLM"):
        assert learnt(teachers, name, {}) == learnt(teachers, name, {})


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """Of translations, one that sometimes ends early."""
    folder = tmp_path_factory.mktemp("writers")
    made = {"translations": marian(folder / "mt", ends=2.0), "running text": gpt2(folder / "lm")}
    return {kind: load(str(place), Cpu()) for kind, place in made.items()}


@pytest.mark.parametrize("key", TEXTS, ids=ids)
def test_every_key_of_the_teachers_writing_changes_its_texts(key: Key, writers: dict[str, Loaded], tmp_path: Path):
    kind, given, value = TEXTS[key]
    source = Rows("parallel", PAIRS) if kind == "translations" else Rows("documents", DOCUMENTS)

    def texts(place: str, **settings: Any) -> list[Any]:
        how = TeacherTexts(**given | settings)
        found = written(tmp_path / place, source, how, {"t": 1}, 1, lambda: writers[kind], silent)
        return [row.texts for row in found.rows("train")]

    first = texts("one")
    assert first == texts("the same")
    assert first != texts("other", **{key[1]: value})


def test_chunks_are_as_large_as_they_may_be(teachers: Path, monkeypatch: pytest.MonkeyPatch):
    """Targets at a time, of 85 pieces in fp32 each."""
    seen: list[int] = []
    cut = learner.chunks_of
    monkeypatch.setattr(learner, "chunks_of", lambda count, width, most: seen.append(most) or cut(count, width, most))
    for megabytes in (16.0, 0.01):
        seen.clear()
        learnt(teachers, "Logits", {}, chunk_mb=megabytes)
        assert set(seen) == {int(megabytes * 2**20)}


def test_the_control_is_trained_if_it_is_wanted(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    for name in ("train", "train_baseline", "compare"):
        monkeypatch.setattr(distilling, name, lambda *_, name=name: done.append(name))
    for wanted in (True, False):
        done.clear()
        words = ["teacher=x", "distill=logits", f"distill.control={str(wanted).lower()}", "name=x"]
        cfg = Composer("distill").task(words)
        plan = SimpleNamespace(teacher_cache="off", distill=build(cfg.distill, object))
        distilling.distill(Training(plan, cfg, cfg))
        assert done == ["train", *(["train_baseline"] if wanted else []), "compare"]
