"""lmctl against `transformers.Trainer` on one GPU: tokens per second, and the peak of torch's allocator.

Both sides train the same networks (BERT-base, 30,522 rows of vocabulary; GPT-2 small, 50,257) from the same text with
the same tokenizer, rows, learning rate and fused AdamW; the Trainer reads its rows through four workers. Each side is
one process that takes all its settings in turn.

    python scripts/bench/gpu_speed.py --out DIR                # two to three minutes; a table on standard output
    python scripts/bench/gpu_speed.py --out DIR --only gpt2 --repeats 3
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import mlm
import torch
from gpu_clock import PROFILED, Clock

SHAPES = {"bert_base": (64, 512), "bert_base_128": (256, 128), "gpt2_small": (16, 1024)}
"""Rows and positions of a step, by the first word of a setting's name, which is a model's but for the length."""
ROWS_OF_VOCABULARY = {"bert_base": 30_522, "gpt2_small": 50_257}
LAYERS, HIDDEN, MASKED = 12, 768, 0.15
"""Of both networks, and the share of positions that BERT predicts."""
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bf16 products by the makers' data sheets, in 10^12 operations per second."""
ONE_STREAM = "mix.tasks.corpus.objective.separate_documents=false"
OURS = {
    "bert_base bf16": "precision=bf16",
    "bert_base fp16": "precision=fp16",
    "bert_base tf32": "precision=tf32",
    "bert_base fp32": "precision=fp32",
    "bert_base fp8": "precision=fp8",
    "bert_base int8": "precision=int8 precision.float_products=bf16",
    "bert_base int8_full": "precision=int8_full precision.float_products=bf16",
    "bert_base bf16_pure": "precision=bf16_pure",
    "bert_base bf16, compiled": "precision=bf16 compile=true",
    "bert_base_128 bf16": "precision=bf16",
    "bert_base_128 fp32": "precision=fp32",
    "gpt2_small fp32": f"precision=fp32 {ONE_STREAM}",
    "gpt2_small int8": f"precision=int8 precision.float_products=bf16 {ONE_STREAM}",
    "gpt2_small bf16": f"precision=bf16 {ONE_STREAM}",
    "gpt2_small bf16, documents apart": "precision=bf16",
    "gpt2_small fp8": f"precision=fp8 {ONE_STREAM}",
}
"""Words of `lmctl train`."""
THEIRS: dict[str, dict[str, Any]] = {
    "bert_base bf16": {"bf16": True},
    "bert_base fp16": {"fp16": True},
    "bert_base tf32": {"tf32": True},
    "bert_base fp32": {"tf32": False},
    "bert_base bf16, compiled": {"bf16": True, "torch_compile": True},
    "bert_base_128 bf16": {"bf16": True},
    "bert_base_128 fp32": {"tf32": False},
    "gpt2_small bf16": {"bf16": True},
    "gpt2_small fp32": {"tf32": False},
}
"""Arguments of the Trainer."""


def model_of(name: str) -> str:
    """The model of a setting."""
    return name.split()[0].removesuffix("_128")


def used(name: str, tokens_per_second: float, gpu: str) -> float | None:
    """Share of the GPU's bf16 peak that the model's products take at this speed, forward and backward (Chowdhery et al.
    2022, appendix B); None on a GPU that is not in the table. A head counts at the positions that are predicted."""
    peak = next((rate for card, rate in PEAK_TFLOPS.items() if card in gpu), None)
    model, positions = model_of(name), SHAPES[name.split()[0]][1]
    predicted = 1.0 if model.startswith("gpt2") else MASKED
    weights = 12 * LAYERS * HIDDEN**2 + predicted * ROWS_OF_VOCABULARY[model] * HIDDEN
    per_token = 6 * weights + 12 * LAYERS * HIDDEN * positions
    return None if peak is None else per_token * tokens_per_second / (peak * 1e12)


def our_plan(name: str, work: Path, steps: int) -> Any:
    from lmctl.config.compose import Composer
    from lmctl.plan import Plan

    model, (rows, positions) = model_of(name), SHAPES[name.split()[0]]
    words = [
        "data=text",
        f"data.path={work / 'train.txt'}",
        f"data.valid_path={work / 'valid.txt'}",
        "data.layout=blank_line_between_documents",
        "tokenizer=pretrained",
        f"tokenizer.path={work / 'tokenizer'}",
        f"mix={'clm' if model.startswith('gpt2') else 'mlm'}",
        f"model={model}",
        f"model.pad_vocabulary_to={ROWS_OF_VOCABULARY[model]}",
        f"batch.size={rows}",
        f"batch.seq_len={positions}",
        "optim.lr=1e-4",
        "runner=gpu",
        f"budget.steps={steps}",
        f"cache_dir={work / 'cache'}",
    ]
    return Plan.from_config(Composer("train").task([*words, *OURS[name].split()]))


def our_trainer(name: str, work: Path, steps: int) -> Any:
    from lmctl.parallel.processes import Processes
    from lmctl.train.prepare import prepare
    from lmctl.train.trainer import Trainer

    plan = our_plan(name, work, steps)
    prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
    return Trainer(plan, prepared, Processes(plan.runner.on_cpu()))


def ours(name: str, work: Path, warmup: int, steps: int) -> dict[str, Any]:
    clock = Clock(warmup, steps)
    for _ in our_trainer(name, work, steps + PROFILED).steps():
        clock.tick()
    return clock.figures(SHAPES[name.split()[0]])


def theirs(name: str, work: Path, warmup: int, steps: int) -> dict[str, Any]:
    import transformers
    from peer import SETTINGS
    from peer_mlm import examples
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

    transformers.logging.set_verbosity_error()
    model_name, (rows, positions) = model_of(name), SHAPES[name.split()[0]]
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    data = examples(work / "train.txt", tokenizer, positions)
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    torch.manual_seed(1)
    vocabulary = {"vocab_size": ROWS_OF_VOCABULARY[model_name]}
    network: Any
    if model_name == "bert_base":
        config: Any = transformers.BertConfig(**vocabulary, attn_implementation="sdpa")
        network = transformers.BertForMaskedLM(config)
    else:
        config = transformers.GPT2Config(**vocabulary, attn_implementation="sdpa", use_cache=False)
        network = transformers.GPT2LMHeadModel(config)
    clock = Clock(warmup, steps)

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        if model_name == "bert_base":
            batch = mask(examples)
            return {key: batch[key] for key in ("input_ids", "labels")}
        ids = torch.stack([example["input_ids"] for example in examples])
        return {"input_ids": ids, "labels": ids}

    class Ticker(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=steps + PROFILED,
            per_device_train_batch_size=rows,
            learning_rate=1e-4,
            weight_decay=0.01,
            warmup_steps=max(1, steps // 10),
            dataloader_num_workers=4,
            dataloader_persistent_workers=True,
            **SETTINGS,
            **THEIRS[name],
        )
        trainer = Trainer(model=network, args=settings, data_collator=collate, train_dataset=data, callbacks=[Ticker()])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock.figures((rows, positions))


SIDES = {"lmctl": ours, "Trainer": theirs}


def work_through(args: argparse.Namespace) -> None:
    """One side in this process: a line of JSON for each of its settings."""
    if args.side == "lmctl":
        from lmctl.train.display import quiet_libraries

        quiet_libraries()
    for name in chosen(args):
        if args.side == "Trainer" and name not in THEIRS:
            continue
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            figures = SIDES[args.side](name, args.work, args.warmup, args.steps)
        except Exception:
            figures = {"error": traceback.format_exc()}
        print(json.dumps({"name": name} | figures), flush=True)


def chosen(args: argparse.Namespace) -> list[str]:
    names = [name for name in OURS if not args.only or any(word in name for word in args.only)]
    return [name for name in names if not any(word in name for word in args.without)]


def run_side(side: str, args: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    command = [sys.executable, __file__, "--side", side, "--work", str(work), "--out", str(args.out)]
    command += ["--steps", str(args.steps), "--warmup", str(args.warmup)]
    command += ["--only", *args.only, "--without", *args.without]
    done = subprocess.Popen(command, cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    for line in done.stdout:
        if line.startswith("{"):
            yield json.loads(line)
    if done.wait():
        print(f"{side} ended with status {done.returncode}", file=sys.stderr)


def table(lines: list[dict[str, Any]], names: list[str]) -> Iterator[str]:
    """Medians of both sides and their ratios: tokens per second, MiB, and milliseconds of a step that the GPU works."""
    heads = "lmctl tokens/s | Trainer | ratio | lmctl MiB | Trainer | ratio | lmctl ms | Trainer | ratio"
    yield f"| setting | {heads} | of the bf16 peak |"
    yield "|---" + "|---:" * 10 + "|"
    gpu = torch.cuda.get_device_name()
    for name in names:
        cells = [name]
        for key in ("tokens_per_second", "peak_mib", "busy_ms"):
            found = [
                [line[key] for line in lines if (line["side"], line["name"]) == (side, name) and key in line]
                for side in SIDES
            ]
            pair = [median(values) if values else None for values in found]
            cells += [f"{value:,.0f}" if value else "" for value in pair]
            cells.append(f"{pair[0] / pair[1]:.2f}" if pair[0] and pair[1] else "")
            if key == "tokens_per_second":
                share = used(name, pair[0], gpu) if pair[0] else None
        cells.append("" if share is None else f"{share:.0%}")
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder for speed.md, speed.json and kernels.txt")
    p.add_argument("--steps", type=int, default=40, help="optimiser steps")
    p.add_argument("--warmup", type=int, default=10, help="steps at the start that are not measured")
    p.add_argument("--repeats", type=int, default=1, help="times that each side takes its turn")
    p.add_argument("--only", nargs="*", default=[], help="words, one of which a setting's name must contain")
    p.add_argument("--without", nargs="*", default=[], help="words, none of which it may contain")
    p.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    p.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_speed.py: no GPU is visible here")
    if args.side:
        work_through(args)
        return
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lmctl-gpu-") as folder:
        mlm.prepare(argparse.Namespace(data=None, seq_len=512), Path(folder))
        for side in [*SIDES] * args.repeats:
            for line in run_side(side, args, Path(folder)):
                lines.append({"side": side} | line)
                print({k: v for k, v in lines[-1].items() if k != "kernels"}, file=sys.stderr, flush=True)
                (args.out / "speed.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")
    seen = [f"{line['side']} {line['name']}\n{line['kernels']}" for line in lines if "kernels" in line]
    (args.out / "kernels.txt").write_text("\n\n".join(seen), encoding="utf-8")
    shapes = ", ".join(f"{model} {rows} x {positions}" for model, (rows, positions) in SHAPES.items())
    text = [f"{shapes}; steps {args.warmup + 1} to {args.steps}:", "", *table(lines, chosen(args))]
    (args.out / "speed.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
