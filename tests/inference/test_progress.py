"""What takes long says how far it is, and how long it will take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import use_models
from predictions import classifier
from use_models import said

from lmctl.core import progress
from lmctl.inference import progress as shown
from lmctl.inference.length_batches import by_length
from lmctl.train import display


def test_an_evaluation_says_how_much_of_its_stage_is_left(capsys: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shown, "PLAIN_SECONDS", 0.0)
    model = torch.nn.Linear(2, 2)
    with shown.Watch(display.Display(), "mlm").over(model), progress.stage("pseudo-perplexity", 10, "masks") as stage:
        stage.began -= 60
        progress.advance(4, "masks")
        model(torch.zeros(1, 2))
    assert "mlm: pseudo-perplexity: 40% of 10 masks, 1m30s left" in capsys.readouterr().err


def test_rows_are_counted_where_they_are_batched():
    """Rows come in pools, each of which is known before its first batch."""
    seen: list[str] = []
    with progress.stage("mlm", unit="rows") as stage:
        for _ in by_length([[1], [2], [3], [4], [5]], len, 2, lambda batch: seen.append(str(stage)) or batch):
            pass
    assert [line.partition(",")[0] for line in seen] == [
        "mlm: 0% of 5 rows",
        "mlm: 40% of 5 rows",
        "mlm: 80% of 5 rows",
    ]


def test_pseudo_perplexity_counts_its_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All of them before the first is asked for."""
    seen: list[str] = []
    monkeypatch.setattr(shown, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(display.Display, "say", lambda self, text: seen.append(text))
    model = use_models.bert(tmp_path / "bert")
    data = {"_target_": "lmctl.data.text.TextFiles", "path": str(tmp_path / "text.txt")}
    (tmp_path / "text.txt").write_text("the cat sits\na b c\n\nthe red dog\n\nthe cat\n" * 10)
    said("eval", model, data=data, suite="mlm", split="all", limit=3, batch=4, out=str(tmp_path / "eval.json"))
    stages = [re.search(r"pseudo-perplexity of 3 rows: (\d+)% of (\d+) masks", line) for line in seen]
    shares = [int(found[1]) for found in stages if found]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] > 50


def test_translations_that_go_to_a_file_are_counted(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(display, "PATIENCE_SECONDS", 0.0)
    model = use_models.marian(tmp_path / "marian", ends=2.0)
    (tmp_path / "lines.txt").write_text("the cat\na b c\nthe red dog\n")
    said("translate", model, file=str(tmp_path / "lines.txt"))
    assert re.search(r"translating: \d+% of 3 lines", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("verb", "model", "given", "said_of_it"),
    [
        ("predict", "classifier", {"out": "labels.txt"}, r"labelling: \d+% of 70 rows"),
        ("predict", "classifier", {}, r"labelling: \d+% of 70 rows"),
        ("score", "gpt2", {}, r"scoring: \d+% of 70 texts"),
        ("score", "bert", {}, r"scoring: \d+% of 70 texts"),
        ("score", "gpt2", {"mode": "pairs"}, r"scoring: \d+% of 140 texts"),
        ("generate", "gpt2", {"max_new_tokens": 3}, r"generating: \d+% of 70 prompts"),
        ("generate", "bert", {}, r"filling masks: \d+% of 70 prompts"),
    ],
)
def test_what_reads_a_file_says_how_much_of_it_is_left(
    verb: str, model: str, given: dict[str, Any], said_of_it: str, tmp_path: Path, capsys: Any, monkeypatch: Any
):
    """Where results go to a file or into a pipe. All inputs have counted at the end."""
    monkeypatch.setattr(display, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(display, "PLAIN_SECONDS", 0.001)
    stages: list[progress.Stage] = []
    begin = progress.Stage.__init__
    monkeypatch.setattr(
        progress.Stage, "__init__", lambda self, *a, **k: (stages.append(self), begin(self, *a, **k))[1]
    )
    makers = {"classifier": lambda place: classifier(place), "gpt2": use_models.gpt2, "bert": use_models.bert}
    place = makers[model](tmp_path / model)
    line = (
        "the cat\tthe dog sits\n" if "mode" in given else "the [MASK] sits\n" if model == "bert" else "the cat sits\n"
    )
    (tmp_path / "lines.txt").write_text(line * 70)
    files = {key: str(tmp_path / value) for key, value in given.items() if key == "out"}
    said(verb, place, file=str(tmp_path / "lines.txt"), batch=8, **(given | files))
    assert re.search(said_of_it, capsys.readouterr().err)
    counted = next(stage for stage in stages if stage.known)
    assert counted.done == counted.total


def test_standard_input_has_no_total(tmp_path: Path, capsys: Any, monkeypatch: Any):
    monkeypatch.setattr(display, "PATIENCE_SECONDS", 0.0)
    said("score", use_models.gpt2(tmp_path / "gpt2"), typed="the cat\n" * 20)
    assert "scoring" not in capsys.readouterr().err
