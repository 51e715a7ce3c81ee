"""`teacher_cache=`: the teacher is asked once, and a student learns from its answers as from itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import lmctl, metrics, succeed, summary
from taught import SHORT, STUDENT, bert_teacher


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    bert_teacher(folder)
    return folder


def distill(place: Path, name: str, *words: str, verb: str = "distill"):
    return lmctl(verb, "teacher=teacher", *STUDENT, *SHORT, f"name={name}", f"run_dir={name}", *words, cwd=place)


def done(place: Path, name: str, *words: str):
    result = distill(place, name, *words)
    assert result.returncode == 0, result.stderr
    return result


def close(one, other, tolerance):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert b[key] == (pytest.approx(value, rel=tolerance, abs=tolerance) if isinstance(value, float) else value)


def test_a_student_learns_the_same_from_kept_answers_as_from_the_teacher(place):
    done(place, "live", "maskings=2")
    kept = done(place, "kept", "maskings=2", "teacher_cache=auto", "teacher_cache_k=null")
    assert "masking 2 of 2" in kept.stdout
    close(metrics(place / "live"), metrics(place / "kept"), 1e-5)
    # Of most of its distribution little is lost with a few pieces of 300.
    done(place, "few", "maskings=2", "teacher_cache=auto", "teacher_cache_k=100")
    loss = [summary(place / name)["train"]["corpus/distill_logits_mlm"] for name in ("live", "few")]
    assert loss[1] == pytest.approx(loss[0], rel=0.1)
    assert loss[1] != loss[0]


def test_with_kept_answers_the_teachers_weights_are_not_needed_as_a_network(place, monkeypatch):
    """Its own files still say who it is, but nobody loads them: a run with `use` works where loading would fail."""
    built = done(place, "unused", "teacher_cache=build", "maskings=1")
    assert not (place / "unused").exists()
    assert "teacher_cache=use" in built.stdout
    config = place / "teacher/model/config.json"
    whole = config.read_text()
    try:
        config.write_text(json.dumps(json.loads(whole) | {"num_hidden_layers": 99}))  # weights that are not there
        done(place, "used", "teacher_cache=use", "maskings=1")
        assert distill(place, "alive", "maskings=1").returncode != 0
    finally:
        config.write_text(whole)


def test_it_resumes_to_the_bit(place):
    words = ["teacher_cache=auto", "maskings=2", "checkpoint.every=3", "data.valid_share=0.1"]
    done(place, "whole", *words)
    done(place, "halved", *words, "budget.steps=6")
    for checkpoint in (place / "halved/checkpoints").glob("step-*6"):
        shutil.rmtree(checkpoint)
    (place / "halved/summary.json").unlink()
    succeed("distill", "resume=auto", "run_dir=halved", cwd=place)
    assert metrics(place / "whole") == metrics(place / "halved")
    assert summary(place / "whole")["model_sha256"] == summary(place / "halved")["model_sha256"]


REFUSALS = [
    (["teacher_cache=use", "seed=7", "maskings=1"], "nearest answers in .* are of another seed", "teacher_cache=build"),
    (["teacher_cache=ues"], "teacher_cache=ues is none of its values; did you mean use?", None),
    (["teacher_cache=auto", "maskings=0"], "maskings must be above 0, got 0", None),
    (["teacher_cache=auto", "distill=hidden"], "hidden looks into the teacher", "distill=logits"),
    (["teacher_cache=auto", "budget.steps=null", "budget.minutes=1"], "how often each row will be seen", "maskings=N"),
]


@pytest.mark.parametrize(("words", "message", "hint"), REFUSALS, ids=[" ".join(case[0]) for case in REFUSALS])
def test_refused(place, words, message, hint):
    import re

    result = distill(place, "refused", *words)
    assert result.returncode == 2, result.stderr
    assert re.search(message.replace("?", r"\?"), result.stderr), result.stderr
    assert hint is None or hint in result.stderr
    assert "Traceback" not in result.stderr
    assert not (place / "refused").exists()
