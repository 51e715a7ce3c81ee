"""Mixes of one's own, with objectives of different kinds on one network, from YAML to the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import metrics, summary, write_documents
from in_process import succeed

CASES = {
    "decoder": ("gpt2_tiny", "text: {objective: clm, data: lines}", "topics: {objective: classify, data: rows}"),
    "seq2seq": ("t5_tiny", "gaps: {objective: denoise, data: lines}", "words: {objective: translate, data: few}"),
}


@pytest.mark.parametrize("case", CASES)
def test_different_objectives_in_one_run(tmp_path: Path, case: str):
    model, *tasks = CASES[case]
    write_documents(tmp_path / "text.txt")
    rows = "\n".join(f"{'the cat sees' if n % 2 else 'a dog likes'} {n}\t{n % 2}" for n in range(80))
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + rows + "\n")
    files = {
        "mix/mine.yaml": "# Mine\n_target_: lmctl.mix.mix.Mix\ntasks:\n"
        + "".join(f"  {task}\n" for task in tasks)
        + "sampling: {_target_: lmctl.mix.mix.Sampling, unit: tokens}\nbalance: uncertainty\nconflict_every: 2\n",
        "data/rows.yaml": "# Rows\n_target_: lmctl.data.table.Table\npath: rows.tsv\nlabel: label\n",
        "data/few.yaml": "# Few\n_target_: lmctl.data.numbers.Numbers\nsize: 900\n",
        "data/lines.yaml": "# Lines\n_target_: lmctl.data.text.TextFiles\npath: text.txt\n",
    }
    for name, text in files.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    words = ["--config-dir", "conf", "mix=mine", f"model={model}", "model.hidden=32", "tokenizer.vocab_size=300"]
    size = ["batch.size=8", "batch.seq_len=32", "budget.steps=6", "log.every=2", "eval.rows=16", "runner=cpu"]
    size += ["checkpoint.every=5"]
    succeed("train", *words, *size, "name=both", cwd=tmp_path)
    run = tmp_path / "runs" / "both"
    names = [task.split(":")[0] for task in tasks]
    trained = [line for line in metrics(run) if line["split"] == "train"]
    assert [line["step"] for line in trained] == [2, 4, 6]
    for line in trained:
        assert {name.split("/")[1] for name in line if name.startswith("loss/")} == set(names)
        assert line["tokens"] == sum(line[f"tokens/{name}"] for name in names)
        assert sum(line[f"share/{name}"] for name in names) == pytest.approx(1, abs=1e-3)
        assert -1 <= line[f"conflict/{'|'.join(sorted(names))}"] <= 1
    if case == "decoder":  # gone back to where the cosines of step 5 were known and not yet written down
        checkpoint = "resume=runs/both/checkpoints/step-00000005"
        succeed("train", "--config-dir", "conf", checkpoint, "run_dir=runs/both", cwd=tmp_path)
        again = [line for line in metrics(run) if line["split"] == "train"]
        assert again == trained
    assert 0.35 < trained[-1][f"share/{names[0]}"] < 0.65
    known = json.loads((run / "model" / "lmctl_tasks.json").read_text())
    assert [known[name]["reads"] for name in names] == ["documents", {"decoder": "labelled"}.get(case, "parallel")]
    assert summary(run)["valid"]["loss"] == pytest.approx(
        sum(value for name, value in summary(run)["valid"].items() if name in summary(run)["train"] and name != "loss")
    )
