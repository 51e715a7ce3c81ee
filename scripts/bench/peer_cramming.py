"""The peer of cramming.py: a small BERT by `transformers.Trainer` in a given time, then tuned on two tasks.

The usual settings: BERT's layers and learned positions, dropout 0.1, 15 % of the tokens masked, AdamW, a linear
schedule with a tenth of warm-up, bf16.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from common import Sizes, full_rows
from peer import SETTINGS
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

SIZES = Sizes(4, 192, 3)
"""As recipe=cramming."""
ROWS, SEQ_LEN, LR = 16, 128, 5e-4
WARMUP, TIMED = 20, 300
"""Steps of the count."""


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def table(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """Columns of a tab-separated file without quoting."""
    head, *lines = (line.split("\t") for line in text_of(path).splitlines())
    return [tuple(line[head.index(name)] for name in columns) for line in lines]


def arguments(folder: str, steps: int, rows: int, lr: float, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=rows,
        learning_rate=lr,
        weight_decay=0.01,
        warmup_steps=max(1, steps // 10),
        use_cpu=True,
        bf16=True,
        seed=seed,
        dataloader_pin_memory=False,
        **SETTINGS,
    )


def pretrainer(args: argparse.Namespace, tokenizer: Any, folder: str) -> Callable[[int], Trainer]:
    """A new model and its `Trainer`, for so many steps."""
    paragraphs = [" ".join(part.split()) for file in args.text for part in text_of(file).split("\n\n")]
    encoded = tokenizer(paragraphs, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    data = [
        {"input_ids": row}
        for row in torch.from_numpy(full_rows(encoded, SEQ_LEN, tokenizer.cls_token_id, tokenizer.sep_token_id))
    ]
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)

    def trainer(steps: int) -> Trainer:
        torch.manual_seed(args.seed)
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=SIZES.hidden,
                num_hidden_layers=SIZES.layers,
                num_attention_heads=SIZES.heads,
                intermediate_size=4 * SIZES.hidden,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        return Trainer(model, arguments(folder, steps, ROWS, LR, args.seed), mask, data)

    return trainer


def steps_of_a_minute(trainer: Callable[[int], Trainer]) -> float:
    """Steps that a minute holds, timed after some that warm up."""
    trainer(WARMUP).train()
    began = time.monotonic()
    trainer(TIMED).train()
    return 60 * TIMED / (time.monotonic() - began)


class Task(NamedTuple):
    """A data set of labels, and how it is learnt: as the recipe does."""

    name: str
    texts: tuple[str, ...]
    """Columns."""
    seq_len: int
    rows: int
    epochs: int
    lr: float


TASKS = (Task("sst2", ("text",), 64, 32, 2, 5e-4), Task("mrpc", ("text_a", "text_b"), SEQ_LEN, 16, 2, 2e-4))


def tuned(task: Task, args: argparse.Namespace, model: str, tokenizer: Any) -> float:
    """Accuracy on the development rows after fine-tuning."""
    folder = args.data / task.name
    (training,) = folder.glob("train.tsv*")

    def rows(path: Path) -> list[dict[str, Any]]:
        parts = [(texts, int(label)) for *texts, label in table(path, *task.texts, "label")]
        return [{**tokenizer(*texts, truncation=True, max_length=task.seq_len), "labels": n} for texts, n in parts]

    train, valid = rows(training), rows(folder / "dev.tsv")
    torch.manual_seed(args.seed)
    network = BertForSequenceClassification.from_pretrained(model, num_labels=2)
    with tempfile.TemporaryDirectory() as output:
        settings = arguments(output, task.epochs * len(train) // task.rows, task.rows, task.lr, args.seed)
        trainer = Trainer(network, settings, DataCollatorWithPadding(tokenizer), train)
        trainer.train()
        answers = trainer.predict(valid)
    return float((np.argmax(answers.predictions, axis=-1) == answers.label_ids).mean())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--tokenizer", type=Path, required=True)
    p.add_argument("--text", type=Path, nargs="+", required=True)
    p.add_argument("--data", type=Path, required=True, help="folder with sst2/ and mrpc/")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", action="store_true", help="count the steps of a minute, and train no more")
    what.add_argument("--steps", type=int, help="steps of pre-training")
    p.add_argument("--seed", type=int, required=True)
    args = p.parse_args()
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pretrainer(args, tokenizer, folder)
        if args.count:
            found = {"steps": steps_of_a_minute(trainer)}
        else:
            whole = trainer(args.steps)
            whole.train()
            whole.save_model(f"{folder}/pretrained")
            found = {"steps": args.steps}
            found |= {task.name: tuned(task, args, f"{folder}/pretrained", tokenizer) for task in TASKS}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
