"""Directories of runs as `lmctl train` leaves them, made in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

HIGHER = {"term": "corpus/mlm", "higher_is_better": True, "share": True}
LOWER = {"term": "corpus/mlm", "higher_is_better": False, "share": False}


def write_run(
    folder: Path,
    loss: float | None,
    *,
    status: str = "completed",
    seed: int = 1,
    seconds: float = 10.0,
    rows: int = 100,
    text: str = "abc",
    lines: int = 20,
    **config: Any,
) -> Path:
    """A run whose validation loss falls from 10 to `loss`; without one it has not ended. `config` are keys of its
    config, with __ for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    tree: dict[str, Any] = {"precision": {"_target_": "lmctl.precision.fp32.Fp32"}, "seed": seed, "name": folder.name}
    for key, value in config.items():
        *above, last = key.split("__")
        node = tree
        for step in above:
            node = node.setdefault(step, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    prints = {"tokenizer": "t", "corpus": text}
    (folder / "environment.json").write_text(json.dumps({"lmctl": "0.1.0", "fingerprints": prints}))
    end = 5.0 if loss is None else loss
    with open(folder / "metrics.jsonl", "w") as file:
        for number in range(lines + 1):
            place = {"step": 10 * number, "tokens": 1000 * number, "seconds": seconds * number / lines}
            value = 10 + (end - 10) * number / lines
            if number:
                speed = {"lr": 1e-3, "peak_memory_bytes": 1 << 28, "bytes_sent": 4096 * number}
                losses = {"split": "train", "loss": value, "loss/corpus/mlm": value}
                file.write(json.dumps(place | losses | speed) + "\n")
            if number % 5 == 0:
                figures = {"loss": value, "loss/corpus/mlm": value, "corpus/mlm_accuracy": 1 / value, "rows": rows}
                file.write(json.dumps(place | {"split": "valid"} | figures) + "\n")
    if loss is not None:
        valid = {"loss": loss, "corpus/mlm": loss, "corpus/mlm_accuracy": 1 / loss}
        summary = {"status": status, "steps": 10 * lines, "tokens": 1000 * lines, "seconds": seconds, "valid": valid}
        summary |= {"peak_memory_bytes": 1 << 29, "bytes_sent": 4096 * lines, "model_bytes": 1 << 20}
        summary |= {
            "valid_metrics": {"loss": LOWER | {"term": "loss"}, "corpus/mlm": LOWER, "corpus/mlm_accuracy": HIGHER}
        }
        summary |= {"valid_rows": {"corpus": rows}, "valid_targets": {"corpus/mlm": 7 * rows}}
        summary |= {"valid_interval": {"corpus/mlm": [loss - 0.25, loss + 0.25]}}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_sweep(folder: Path, jobs: dict[str, tuple[str, str | None]]) -> None:
    """The record of a sweep: status and error of each job, whose name is its overrides."""
    rows = [
        {"name": name, "overrides": name.split(","), "run_dir": name, "status": status, "error": error, "code": 0}
        for name, (status, error) in jobs.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(rows))


def write_grid(folder: Path) -> Path:
    """A sweep of 2 learning rates and 2 precisions over 2 seeds, one job of which failed and one was refused."""
    jobs: dict[str, tuple[str, str | None]] = {}
    for rate in (0.1, 0.2):
        for precision in ("fp32", "bf16"):
            for seed in (1, 2):
                name = f"optim.lr={rate},precision={precision},seed={seed}"
                loss = 3 + 5 * rate + (0.5 + 0.1 * seed) * (precision == "bf16") + 0.25 * seed
                failed = rate == 0.2 and precision == "bf16" and seed == 2
                jobs[name] = ("failed", "the loss of step 30 is nan") if failed else ("completed", None)
                write_run(
                    folder / name,
                    loss,
                    status=jobs[name][0],
                    seed=seed,
                    seconds=20.0 if precision == "fp32" else 10.0,
                    optim__lr=rate,
                    precision___target_=f"lmctl.precision.{precision}.{precision.title()}",
                )
    jobs["optim.lr=0.1,precision=fp16,seed=1"] = ("refused", "precision=fp16 needs a GPU <script>alert(1)</script>")
    write_sweep(folder, jobs)
    return folder
