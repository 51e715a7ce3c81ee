"""`lmctl eval` of a run without further words: each of its tasks, on the data that it held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import summary, write_documents
from in_process import succeed

from lmctl.cli.main import main
from lmctl.core.errors import ConfigError
from lmctl.data.text import TextFiles
from lmctl.inference.heads import network_of
from lmctl.inference.load import load
from lmctl.inference.number_formats import Numerics
from lmctl.inference.training_overlap import unseen
from lmctl.precision.int8_dynamic import Int8Dynamic
from lmctl.precision.stored_linear import StoredLinear
from lmctl.runner.places import Cpu

SMALL = ["data=text", "data.path=text.txt", "tokenizer.vocab_size=300", "model.hidden=32", "batch.size=8"]
SMALL += ["batch.seq_len=32", "log.every=5", "budget.steps=6", "runner=cpu", "eval.rows=null"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own")
    write_documents(place / "text.txt", 60)
    rows = "\n".join(
        f"{'the cat sees' if n % 3 else 'a dog likes'} {n} apples\t{'cat' if n % 3 else 'dog'}" for n in range(90)
    )
    (place / "rows.tsv").write_text("text\tlabel\n" + rows + "\n")
    return place


@pytest.fixture(scope="module")
def multitask(folder: Path) -> Path:
    topics = "mix.tasks.topics.data"
    table = [f"data@{topics}=table", f"{topics}.path=rows.tsv", f"{topics}.label=label"]
    succeed("train", "mix=multitask", *SMALL, *table, "name=multi", cwd=folder)
    return folder / "runs" / "multi"


def measured(folder: Path, run: str, *words: str) -> dict[str, Any]:
    """The figures that `lmctl eval` of a run writes."""
    succeed("eval", f"model_path=runs/{run}", "out=figures.json", *words, cwd=folder)
    out = folder / "figures.json"
    figures = json.loads(out.read_text())
    out.unlink()
    return figures


def test_every_task_is_measured_and_agrees_with_the_last_validation(folder: Path, multitask: Path):
    said = succeed("eval", "model_path=runs/multi", cwd=folder).stdout
    figures = json.loads((multitask / "eval.json").read_text())
    assert set(figures) == {"mlm", "classification"}
    assert figures["classification"]["split"] == figures["mlm"]["split"] == "valid"
    assert figures["classification"]["accuracy"] == summary(multitask)["valid"]["topics/label_accuracy"]
    assert "classification\n" in said


def test_one_task_or_other_data_may_be_named(folder: Path, multitask: Path, capsys, monkeypatch):
    assert measured(folder, "multi", "task=topics", "split=all")["classification"]["rows"] == 90
    data = ["data=table", "data.path=rows.tsv", "data.label=label"]
    assert list(measured(folder, "multi", *data)) == ["classification"]
    monkeypatch.chdir(folder)
    assert main(["eval", "model_path=runs/multi", "task=topic"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("\nerror: task=topic: the model has no such task; did you mean topics?\n")


def test_the_loss_of_training_is_measured_again(folder: Path, multitask: Path):
    figures, valid = measured(folder, "multi", "suite=loss"), summary(multitask)["valid"]
    assert figures["loss/corpus"]["mlm"] == pytest.approx(valid["corpus/mlm"], rel=1e-6)
    assert figures["loss/topics"]["label"] == pytest.approx(valid["topics/label"], rel=1e-6)


def test_rows_are_as_long_as_in_training_unless_said(folder: Path, multitask: Path, tmp_path: Path):
    """Positions beyond them have learned nothing. The first 32 of a row decide its label, whatever follows."""
    (folder / "new.txt").write_text(
        "\n".join(["a dog " * 30 + tail for tail in ("", "cat " * 40, "sees 7 apples " * 9)])
    )
    for words, same in ([], True), (["seq_len=200"], False):
        told = succeed("predict", "runs/multi", "new.txt", "task=topics", "format=json", *words, cwd=folder).stdout
        shares = {round(json.loads(line)["probabilities"]["cat"], 6) for line in told.splitlines()}
        assert (len(shares) == 1) is same
    succeed("train", "mix=clm", *SMALL, "name=clm", cwd=folder)
    contexts = [measured(folder, "clm", *words)["perplexity"]["context"] for words in ([], ["seq_len=64"])]
    assert contexts == [f"each document by itself, windows of {n} moved on by {n // 2}" for n in (32, 64)]
    scores = [succeed("score", "runs/clm", "new.txt", *words, cwd=folder).stdout for words in ([], ["seq_len=32"])]
    assert scores[0] == scores[1] != succeed("score", "runs/clm", "new.txt", "seq_len=64", cwd=folder).stdout


def test_a_denoising_model_is_measured_by_its_own_loss(folder: Path):
    succeed("train", "mix=denoise", *SMALL, "name=t5", cwd=folder)
    valid = summary(folder / "runs" / "t5")["valid"]
    assert measured(folder, "t5")["loss"]["lm"] == pytest.approx(valid["corpus/lm"], rel=1e-6)


def test_all_heads_of_a_run_are_measured_in_other_number_formats(folder: Path, multitask: Path):
    """The head beside the language model, and the network that `suite=loss` trains in, are converted, too."""
    words = ["quantize=int8_dynamic", "quantize.exclude=[]", "limit=2"]
    figures = measured(folder, "multi", *words) | measured(folder, "multi", "suite=loss", *words)
    for title, loss in {"loss/topics": "label", "loss/corpus": "mlm", "mlm": "loss"}.items():
        both = figures[f"{title}@int8_dynamic"]
        assert both["changed"][loss] == pytest.approx(both["original"][loss], rel=0.05)
        assert both["changed"][loss] != both["original"][loss]
        assert "model.bert.pooler.dense" not in both["in_float"]
    assert 0 <= figures["classification@int8_dynamic"]["changed"]["accuracy"] <= 1
    loaded = load(str(multitask), Cpu(), Numerics(quantize=Int8Dynamic()))
    assert any(isinstance(module, StoredLinear) for module in network_of(loaded, {"topics": 2}).modules())


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A run on text.txt alone."""
    succeed("train", "mix=mlm", *SMALL, "budget.steps=2", "name=plain", cwd=folder)
    return folder / "runs" / "plain"


def unseen_rows(run: Path, path: Path, **options: object) -> tuple[set[str], str | None]:
    """What would be measured on the text at `path`, as texts, and what would be said about it."""
    found = unseen(str(run), ("lmctl.",), TextFiles(str(path), **options))  # type: ignore[arg-type]
    splits = ("train", "valid") if found.split == "all" else (found.split,)
    return {" ".join(row.texts) for split in splits for row in found.source.rows(split)}, found.remark


def test_a_runs_own_text_is_known_by_what_is_in_it(folder: Path, plain: Path, tmp_path: Path, monkeypatch):
    """However its path is spelt, wherever it lies, however it is split: only what was held out is measured."""
    monkeypatch.chdir(folder)
    held_out = {" ".join(row.texts) for row in TextFiles("text.txt").rows("valid")}
    learnt = {" ".join(row.texts) for row in TextFiles("text.txt").rows("train")}
    assert held_out
    assert learnt
    (tmp_path / "link.txt").symlink_to(folder / "text.txt")
    (tmp_path / "copy.md").write_bytes(Path("text.txt").read_bytes())
    for path in ("text.txt", "./text.txt", folder / "text.txt", tmp_path / "link.txt", tmp_path / "copy.md"):
        assert unseen_rows(plain, Path(path))[0] == held_out
    assert unseen_rows(plain, tmp_path / "copy.md", valid_share=0.5)[0] == held_out
    assert unseen_rows(plain, tmp_path / "copy.md", layout="one_document_per_file")[0] == held_out

    more = tmp_path / "more"
    more.mkdir()
    (more / "a.txt").write_bytes(Path("text.txt").read_bytes())
    other = write_documents(more / "b.txt", 20, seed=5).read_text().split("\n\n")
    rows, remark = unseen_rows(plain, more)
    assert rows == held_out | {" ".join(document.split("\n")).strip() for document in other}
    assert remark is not None
    assert f"{len(learnt)} of " in remark

    part = tmp_path / "part.txt"
    part.write_text("\n\n".join(Path("text.txt").read_text().split("\n\n")[:30]))
    assert unseen_rows(plain, part)[0] <= held_out
    new = write_documents(tmp_path / "new.txt", 10, seed=9)
    assert unseen_rows(plain, new) == ({" ".join(d.split("\n")).strip() for d in new.read_text().split("\n\n")}, None)


def test_text_that_was_all_learnt_from_is_refused(folder: Path, plain: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(folder)
    learnt = [row.texts for row in TextFiles("text.txt").rows("train")]
    (tmp_path / "train.txt").write_text("\n\n".join("\n".join(document) for document in learnt))
    with pytest.raises(ConfigError, match="learnt from all"):
        unseen_rows(plain, tmp_path / "train.txt")
