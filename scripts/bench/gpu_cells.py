"""What lmctl does on a GPU: some hundred commands of the command line, each in a process of its own, many at a time.

Every kind of model, mix, precision, lesson, adversary and compression is trained for some steps, and models are used;
runs that are stopped and resumed must end with the same bits as undisturbed ones; `lmctl plan` is compared with the
memory that torch allocated; the same run on the CPU must learn the same.

    python scripts/bench/gpu_cells.py --out DIR                    # 5 minutes on 16 cores; a table on standard output
    python scripts/bench/gpu_cells.py --out DIR --only int8 resume # cells whose names contain one of these, and theirs
    python scripts/bench/gpu_cells.py --out DIR --device cpu       # without a GPU, to try the script itself
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = "budget.steps=40 eval.rows=32 eval.every=20 log.every=5 checkpoint.every=20"
LONG = "budget.steps=100 eval.rows=32 eval.every=50 log.every=5 checkpoint.every=50 resume=auto"
PLAIN = "model.dropout=0 model.attention_dropout=0"
PRE = "model=pretrained tokenizer=pretrained tokenizer.path=runs/fp32/model init_from=runs/fp32"
TIMING = {"seconds", "tokens_per_s", "peak_memory_bytes"}
"""Keys of metrics.jsonl that depend on the clock or the machine."""

TRAINED = {
    # precision, on one model and one text
    "fp32": "mix=mlm",
    "tf32": "mix=mlm precision=tf32",
    "bf16": "mix=mlm precision=bf16",
    "fp16": "mix=mlm precision=fp16",
    "fp8": "mix=mlm precision=fp8",
    "fp8, row": "mix=mlm precision=fp8 precision.scale=row",
    "int8": "mix=mlm precision=int8",
    "int8, pow2, bf16": "mix=mlm precision=int8 precision.scale=pow2 precision.float_products=bf16",
    "int8_weights": "mix=mlm precision=int8_weights",
    "int8_full": "mix=mlm precision=int8_full",
    "int8_full, bf16 gradients, adamw8bit": "mix=mlm precision=int8_full precision.gradients=bf16 optim=adamw8bit",
    "bf16_pure": "mix=mlm precision=bf16_pure",
    "bf16_pure, kahan": "mix=mlm precision=bf16_pure precision.rounding=kahan",
    "int8_lora": f"mix=mlm precision=int8_lora {PRE} model.lora_rank=8",
    "nf4_lora": f"mix=mlm precision=nf4_lora {PRE} model.lora_rank=8",
    "adamw8bit": "mix=mlm optim=adamw8bit",
    "adamw8bit, paged": "mix=mlm optim=adamw8bit optim.paged=true",
    "sgd": "mix=mlm optim=sgd",
    "compiled": "mix=mlm precision=bf16 compile=true",
    # precision on other architectures
    "gpt2, fp8": "mix=clm precision=fp8",
    "gpt2, int8_full": "mix=clm precision=int8_full",
    "llama, fp8, row": "mix=clm model=llama_tiny precision=fp8 precision.scale=row",
    "llama, bf16_pure": "mix=clm model=llama_tiny precision=bf16_pure",
    "t5, fp16": "mix=denoise precision=fp16",
    "t5, int8_full": "mix=denoise precision=int8_full",
    "transformer_mt, int8": "mix=translate precision=int8",
    "lstm, bf16": "mix=clm_stream precision=bf16",
    "lstm, tf32": "mix=clm_stream precision=tf32",
    "lstm_awd, fp16": "mix=clm_stream model=lstm_awd precision=fp16",
    "rnn_mt, int8": "mix=translate model=rnn_mt_tiny precision=int8",
    # families and mixes
    "mlm_nsp": "",
    "mlm_sop": "mix=mlm_sop",
    "modernbert": "mix=mlm model=modernbert_tiny",
    "gpt2": "mix=clm",
    "llama": "mix=clm model=llama_tiny",
    "lstm": "mix=clm_stream",
    "gru": "mix=clm_stream model=gru",
    "t5": "mix=denoise",
    "transformer_mt": "mix=translate",
    "rnn_mt": "mix=translate model=rnn_mt_tiny",
    "bilstm": "mix=classify model=bilstm_tiny",
    "classify": "mix=classify",
    "gpt2, classify": "mix=classify model=gpt2_tiny",
    "multitask, uncertainty, conflict": "mix=multitask mix.balance=uncertainty mix.conflict_every=10",
    "lstm, conflict": "mix=clm_stream mix.conflict_every=10",
    "curriculum": "mix=curriculum",
    "fine-tuned": "mix=classify init_from=runs/fp32 optim.layer_decay=0.8",
    # lessons
    "distill": "distill teacher=runs/fp32 distill.control=true",
    "distill, logits and hidden": "distill teacher=runs/fp32 distill=[logits,hidden] distill.control=false",
    "distill, attention": "distill teacher=runs/fp32 distill=attention distill.control=false",
    "distill, minilm": "distill teacher=runs/fp32 distill=minilm distill.control=false precision=bf16",
    "distill, tinybert": "distill teacher=runs/fp32 distill=tinybert distill.control=false",
    "distill, cached": "distill teacher=runs/fp32 teacher_cache=auto maskings=2 distill.control=false",
    "distill, int8 teacher": "distill teacher=runs/fp32 distill.teacher_precision=int8_weights distill.control=false",
    "distill, sequence": "distill teacher=runs/transformer_mt distill=sequence distill.control=false",
    "distill, on_policy": "distill teacher=runs/gpt2 distill=on_policy distill.control=false",
    "distill, lstm": "distill teacher=runs/gpt2 model=lstm_tiny distill.control=false",
    # adversaries
    "fgm": "mix=classify adversary=fgm",
    "pgd": "mix=classify adversary=pgd precision=bf16",
    "freelb": "mix=classify adversary=freelb precision=fp16",
    "smart": "mix=translate adversary=smart",
    "rdrop": "mix=classify adversary=rdrop",
    "noise": "mix=classify adversary=noise",
    "lstm, fgm": "mix=clm_stream adversary=fgm",
    # compression
    "topk_int8": "mix=mlm compression=topk_int8 compression.simulate_workers=4",
    "powersgd": "mix=mlm compression=powersgd compression.simulate_workers=4",
    "onebit": "mix=mlm compression=onebit compression.simulate_workers=2 precision=bf16",
    # loop
    "accumulated": f"mix=mlm {PLAIN} batch.micro=2",
    "checkpointing": f"mix=mlm {PLAIN} gradient_checkpointing=true",
    "gpt2, checkpointing": "mix=clm gradient_checkpointing=true precision=bf16",
    "t5, checkpointing": "mix=denoise gradient_checkpointing=true",
    "without dropout": f"mix=mlm {PLAIN}",
    "without dropout, CPU": f"mix=mlm {PLAIN} runner=cpu",
    "ddp of one": "mix=mlm runner=ddp runner.processes=1",
}
"""Words of `lmctl train`, or of the verb they begin with."""
SAME_LOSS = ["accumulated", "checkpointing", "without dropout, CPU"]
"""Runs that must learn what "without dropout" learns, but for the order of sums."""
NEAR = 0.05
"""Of the reference's loss at the end: how far a run in another precision may be from it."""

RESUMED = {
    "mlm_nsp": "",
    "gpt2, bf16": "mix=clm precision=bf16",
    "modernbert": "mix=mlm model=modernbert_tiny",
    "t5": "mix=denoise",
    "lstm": "mix=clm_stream",
    "transformer_mt, fp16": "mix=translate precision=fp16",
    "rnn_mt": "mix=translate model=rnn_mt_tiny",
    "classify, freelb": "mix=classify adversary=freelb",
    "multitask, uncertainty": "mix=multitask mix.balance=uncertainty",
    "int8_full, adamw8bit": "mix=mlm precision=int8_full optim=adamw8bit",
    "bf16_pure, kahan": "mix=mlm precision=bf16_pure precision.rounding=kahan",
    "topk_int8": "mix=mlm compression=topk_int8 compression.simulate_workers=4",
    "distill, cached": "distill teacher=runs/fp32 teacher_cache=auto maskings=2 distill.control=false",
}
"""Trained undisturbed, and again, stopped by SIGTERM and resumed."""

PLANNED = {
    "bert_tiny": "mix=mlm",
    "bert_base, 32 x 512": "mix=mlm model=bert_base batch.size=32 batch.seq_len=512",
    "bert_base, 32 x 512, bf16": "mix=mlm model=bert_base batch.size=32 batch.seq_len=512 precision=bf16",
    "bert_base, 32 x 512, checkpointing": "mix=mlm model=bert_base batch.size=32 batch.seq_len=512 precision=bf16 "
    "gradient_checkpointing=true",
    "bert_base, 32 x 128, int8_full": "mix=mlm model=bert_base batch.size=32 precision=int8_full",
    "bert_base, 32 x 128, fp8": "mix=mlm model=bert_base batch.size=32 precision=fp8",
    "bert_base, 32 x 128, bf16_pure, adamw8bit": "mix=mlm model=bert_base batch.size=32 precision=bf16_pure "
    "optim=adamw8bit",
    "modernbert_base, 16 x 256, bf16": "mix=mlm model=modernbert_base batch.size=16 batch.seq_len=256 precision=bf16",
    "gpt2_small, 8 x 1024, bf16": "mix=clm model=gpt2_small batch.size=8 batch.seq_len=1024 precision=bf16",
    "llama_base, 8 x 512, bf16": "mix=clm model=llama_base batch.size=8 batch.seq_len=512 precision=bf16",
    "t5_base, 8 x 256": "mix=denoise model=t5_base batch.size=8 batch.seq_len=256",
    "transformer_mt_base": "mix=translate model=transformer_mt_base batch.size=64",
    "lstm_medium": "mix=clm_stream model=lstm_medium batch.size=32",
    "classify, freelb": "mix=classify model=bert_base adversary=freelb batch.size=16",
}
"""Planned, trained for some steps, and compared."""

USED = {
    "eval": "eval model_path=runs/fp32 rows=8",
    "eval, int8_dynamic": "eval model_path=runs/fp32 suite=loss rows=16 quantize=int8_dynamic out=dynamic.json",
    "eval, int8_weight_only": "eval model_path=runs/gpt2 quantize=int8_weight_only out=weight_only.json",
    "eval, bf16": "eval model_path=runs/gpt2 precision=bf16 out=bf16.json",
    "eval, fp8": "eval model_path=runs/fp32 suite=loss rows=16 precision=fp8 out=fp8.json",
    "eval, nf4": "eval model_path=runs/fp32 suite=loss rows=16 precision=nf4_lora out=nf4.json",
    "eval, robustness": "eval model_path=runs/classify suite=robustness rows=32",
    "eval, translation": "eval model_path=runs/transformer_mt rows=16",
    "eval, lstm": "eval model_path=runs/lstm",
    "generate, masks": "generate model_path=runs/fp32 'prompt=The [MASK] statement'",
    "generate, greedy": "generate model_path=runs/gpt2 'prompt=The file' max_new_tokens=16",
    "generate, greedy, CPU": "generate model_path=runs/gpt2 'prompt=The file' max_new_tokens=16 runner=cpu",
    "generate, drawn": "generate model_path=runs/llama 'prompt=The file' do_sample=true top_p=0.9 max_new_tokens=16",
    "generate, beams": "generate model_path=runs/lstm 'prompt=the file' beams=3 max_new_tokens=16",
    "translate": "translate model_path=runs/transformer_mt < lines.txt",
    "translate, rnn": "translate model_path=runs/rnn_mt < lines.txt",
    "score": "score model_path=runs/gpt2 format=json < lines.txt",
    "score, CPU": "score model_path=runs/gpt2 format=json runner=cpu < lines.txt",
    "score, masks": "score model_path=runs/fp32 format=json < lines.txt",
    "predict": "predict model_path=runs/classify format=json < lines.txt",
    "predict, CPU": "predict model_path=runs/classify format=json runner=cpu < lines.txt",
}
LINES = "one hundred and five\nforty two\nseven thousand three hundred\nthe file is opened for reading\n"


@dataclass
class Cell:
    """One command, and what came of it."""

    name: str
    words: list[str]
    run: str | None = None
    """Directory of the run below `runs/`."""
    stop: bool = False
    """Stop it by SIGTERM in the middle, and go on."""
    needs: set[str] = field(default_factory=set)
    """Runs that must be there."""
    status: str = "not run"
    seconds: float = 0.0
    said: str = ""
    found: dict[str, Any] = field(default_factory=dict)


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def cells(device: str) -> list[Cell]:
    """All of them, what takes longest first."""
    place = "cpu" if device == "cpu" else "gpu"

    def cell(name: str, line: str, *more: str, run: str | None = None, stop: bool = False) -> Cell:
        words = shlex.split(line)
        if not words or "=" in words[0]:
            words.insert(0, "train")
        words += [word for text in more for word in shlex.split(text)]
        if not any(word.startswith("runner=") for word in words):
            words.append(f"runner={place}")
        if run is not None:
            words.append(f"name={run}")
        needs = set(re.findall(r"=runs/([^/ ]+)", " ".join(words)))
        return Cell(name, words, run, stop, needs)

    made = [cell(name, line, SHORT, run=slug(name)) for name, line in TRAINED.items()]
    first = {"compiled", "fp32", "gpt2", "transformer_mt", "classify"}
    made.sort(key=lambda one: one.name not in first)
    made += [cell(name, line) for name, line in USED.items()]
    for name, line in PLANNED.items():
        steps = "budget.steps=6 eval.rows=8 eval.every=100"
        made.append(cell(f"plan: {name}", f"plan {line}", steps, f"out=plan-{slug(name)}.json"))
        made.append(cell(f"plan, measured: {name}", line, steps, run=f"plan-{slug(name)}"))
    for name, line in RESUMED.items():
        for which in ("undisturbed", "stopped"):
            run = f"{which}-{slug(name)}"
            made.append(cell(f"resume: {name}, {which}", line, LONG, run=run, stop=which == "stopped"))
    return made


def wanted(every: list[Cell], only: list[str], without: list[str]) -> list[Cell]:
    """Those whose names contain one of the words (and none of those `without`), and the runs that they need."""
    chosen = [one for one in every if not only or any(word in one.name for word in only)]
    chosen = [one for one in chosen if not any(word in one.name for word in without)]
    while missing := {run for one in chosen for run in one.needs} - {one.run for one in chosen}:
        chosen = [one for one in every if one.run in missing] + chosen
    return chosen


class Bench:
    """Runs cells in one folder."""

    def __init__(self, folder: Path, deadline: float, limit: float) -> None:
        self.folder, self.deadline, self.limit = folder, deadline, limit
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"LMCTL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "160"}
        self.environment = os.environ | own | {"HF_HUB_OFFLINE": "1"}
        (folder / "lines.txt").write_text(LINES, encoding="utf-8")

    def do(self, cell: Cell) -> Cell:
        began = time.monotonic()
        end = min(self.deadline, began + self.limit)
        try:
            code = 0
            if cell.stop:
                code = self._command(cell, end, stop=True)
                cell.found["stopped"] = code
                code = 0 if code in (0, 75) else code
            code = code or self._command(cell, end)
            cell.status = "ok" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            cell.status = "out of time"
        cell.seconds = time.monotonic() - began
        if cell.run is not None:
            cell.found |= self._figures(self.folder / "runs" / cell.run)
        return cell

    def _command(self, cell: Cell, end: float, stop: bool = False) -> int:
        words, stdin = cell.words, subprocess.DEVNULL
        if "<" in words:
            words, file = words[: words.index("<")], words[words.index("<") + 1]
            stdin = os.open(self.folder / file, os.O_RDONLY)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            command = [sys.executable, "-m", "lmctl", *words]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=stdin, stdout=said, stderr=subprocess.STDOUT
            )
            try:
                if stop:
                    self._stop(process, self.folder / "runs" / str(cell.run) / "metrics.jsonl", end)
                code = process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                said.seek(0)
                cell.said += said.read()
        return code

    def _stop(self, process: subprocess.Popen[Any], metrics: Path, end: float) -> None:
        """SIGTERM once so many steps are on record."""
        while process.poll() is None and time.monotonic() < end:
            if metrics.exists() and sum('"split": "train"' in line for line in metrics.read_text().splitlines()) >= 8:
                process.send_signal(signal.SIGTERM)
                return
            time.sleep(0.01)

    def _figures(self, run: Path) -> dict[str, Any]:
        """What the run says of itself."""
        if not (run / "summary.json").exists():
            return {}
        summary = json.loads((run / "summary.json").read_text())
        valid = [line["loss"] for line in metrics_of(run) if line.get("split") == "valid"]
        return {
            "first": valid[0] if valid else None,
            "last": valid[-1] if valid else None,
            "peak": summary["peak_memory_bytes"],
            "speed": summary["training_tokens_per_second"],
            "skipped": summary["skipped_steps"],
            "proof": summary["precision"].get("proof"),
        }


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    file = run / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def run_all(bench: Bench, chosen: list[Cell], workers: int) -> None:
    """Each as soon as the runs that it needs are there."""
    waiting, done = list(chosen), set[str]()
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[Cell]] = set()
        while waiting or running:
            ready = [one for one in waiting if one.needs <= done][: workers - len(running)]
            waiting = [one for one in waiting if one not in ready]
            running |= {pool.submit(bench.do, one) for one in ready}
            if not running:  # what they need was never there
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for cell in (future.result() for future in finished):
                print(f"{cell.name}: {cell.status}, {cell.seconds:.0f} s", file=sys.stderr, flush=True)
                if cell.run is not None:
                    done.add(cell.run)
            if time.monotonic() > bench.deadline:
                waiting = []


def compare(folder: Path, chosen: Iterable[Cell]) -> list[str]:
    """What must hold between cells, as lines that begin with `ok`, `off` or `not run`."""
    by, said = {one.name: one for one in chosen}, []

    def figure(name: str, key: str) -> float | None:
        return by[name].found.get(key) if name in by else None

    for name in SAME_LOSS:
        ours, theirs = figure(name, "last"), figure("without dropout", "last")
        if ours and theirs:
            off = abs(ours - theirs) / theirs
            said.append(f"{'ok' if off < 1e-3 else 'off'}: {name}: loss {ours:.5f}, plain {theirs:.5f} ({off:.1e})")
    for name, line in TRAINED.items():
        ours, theirs = figure(name, "last"), figure("fp32", "last")
        if line.startswith("mix=mlm precision=") and "lora" not in line and ours and theirs:
            off = abs(ours - theirs) / theirs
            said.append(f"{'ok' if off < NEAR else 'off'}: {name}: loss {ours:.4f}, fp32 {theirs:.4f} ({off:.1e})")
    for name in RESUMED:
        runs = [folder / "runs" / f"{which}-{slug(name)}" for which in ("undisturbed", "stopped")]
        said.append(f"{alike(*runs)}: {name}: stopped and resumed, the same bits")
    for name in PLANNED:
        file, peak = folder / f"plan-{slug(name)}.json", figure(f"plan, measured: {name}", "peak")
        if file.exists() and peak:
            predicted = json.loads(file.read_text())["memory"]["peak_bytes"]
            ratio = predicted / peak
            verdict = "ok" if 0.85 <= ratio <= 1.15 else "off"
            said.append(f"{verdict}: plan, {name}: {predicted / 2**20:,.0f} of {peak / 2**20:,.0f} MiB, x {ratio:.2f}")
    for one in ("generate, greedy", "score", "predict"):
        other = f"{one}, CPU"
        if one in by and other in by:
            same = rounded(by[one].said) == rounded(by[other].said)
            said.append(f"{'ok' if same else 'off'}: {one}: as on the CPU")
    return said


def rounded(text: str) -> str:
    """`text`, its numbers to three places."""
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.3f}", text)


def alike(one: Path, other: Path) -> str:
    """Whether two runs have the same bits, and where their losses part if not."""
    files = [run / "model" / "model.safetensors" for run in (one, other)]
    if not all(file.exists() for file in files):
        return "not run"
    left, right = metrics_of(one), metrics_of(other)
    parts = next((a.get("step") for a, b in zip(left, right, strict=False) if a != b), None)
    if parts is not None:
        return f"off (losses part at step {parts})"
    return "ok" if files[0].read_bytes() == files[1].read_bytes() else "off (weights differ)"


def table(chosen: Iterable[Cell]) -> Iterable[str]:
    yield f"| {'cell':45} | {'status':14} |   s | first loss | last loss | peak MiB |"
    yield f"|{'-' * 47}|{'-' * 16}|----:|-----------:|----------:|---------:|"
    for one in chosen:
        first, last, peak = (one.found.get(key) for key in ("first", "last", "peak"))
        figures = [f"{value:.4f}" if value is not None else "" for value in (first, last)]
        mib = f"{peak / 2**20:,.0f}" if peak is not None else ""
        losses = f"{figures[0]:>10} | {figures[1]:>9}"
        yield f"| {one.name:45} | {one.status:14} | {one.seconds:3.0f} | {losses} | {mib:>8} |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder for the report, cells.json and cells.log")
    p.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    p.add_argument("--only", nargs="*", default=[], help="words, one of which a cell's name must contain")
    p.add_argument("--without", nargs="*", default=[], help="words, none of which it may contain")
    p.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="cells at a time")
    p.add_argument("--seconds", type=float, default=450, help="after which no cell goes on")
    p.add_argument("--limit", type=float, default=120, help="seconds of one cell")
    arguments = p.parse_args()
    chosen = wanted(cells(arguments.device), arguments.only, arguments.without)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lmctl-gpu-") as temporary:
        folder = Path(temporary)
        bench = Bench(folder, time.monotonic() + arguments.seconds, arguments.limit)
        run_all(bench, chosen, arguments.workers)
        compared = compare(folder, chosen)
    lines = [*table(chosen), "", *compared]
    failed = [one for one in chosen if one.status != "ok"]
    log = "\n".join(f"=== {one.name}: {one.status}\nlmctl {shlex.join(one.words)}\n{one.said}" for one in chosen)
    (arguments.out / "cells.log").write_text(log, encoding="utf-8")
    report = [{k: v for k, v in vars(one).items() if k not in ("said", "needs")} for one in chosen]
    (arguments.out / "cells.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (arguments.out / "cells.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    print(f"\n{len(chosen) - len(failed)} of {len(chosen)} cells ok")
    sys.exit(1 if failed or any(not line.startswith("ok") for line in compared) else 0)


if __name__ == "__main__":
    main()
