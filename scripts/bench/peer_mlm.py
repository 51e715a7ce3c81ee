"""The peer: `transformers.Trainer` pre-training the same BERT, as one would sensibly write it by hand.

Fast tokenizer, the text concatenated and cut into full rows so that nothing is padding, the library's masking
collator, SDPA attention without a mask (all ones would only keep it off its fast path), fused AdamW, no logging.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from common import VOCABULARY_ROWS, Clock, full_rows, heldout_loss, side_arguments
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

SETTINGS: dict[str, Any] = {
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "optim": "adamw_torch_fused",
    "dataloader_drop_last": True,
    "remove_unused_columns": False,
    "logging_strategy": "no",
    "logging_nan_inf_filter": False,  # the filter inspects the loss at every step
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
"""Of the Trainer, on a CPU as on a GPU: lmctl's optimiser and schedule, and nothing that costs time besides."""


def examples(text: Path, tokenizer: Any, seq_len: int) -> list[dict[str, Any]]:
    """Full rows of the text, as tensors: the collator stacks those faster than lists."""
    paragraphs = text.read_text(encoding="utf-8").split("\n\n")
    encoded = tokenizer(paragraphs, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    rows = torch.from_numpy(full_rows(encoded, seq_len, tokenizer.cls_token_id, tokenizer.sep_token_id))
    special = torch.isin(rows, torch.tensor(tokenizer.all_special_ids)).long()
    return [{"input_ids": row, "special_tokens_mask": mask} for row, mask in zip(rows, special, strict=True)]


class Ticker(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Tells the clock of every optimiser step."""

    def __init__(self, clock: Clock, tokens: int) -> None:
        self.clock, self.tokens = clock, tokens

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick(self.tokens)


def train(args: Namespace, layers: int, make: Callable[..., Any] = Trainer) -> None:
    """Train a BERT of so many layers with the trainer that `make` makes of `Trainer`'s arguments, and report."""
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(args.work / "tokenizer")
    config = BertConfig(
        vocab_size=VOCABULARY_ROWS,
        hidden_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=1024,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    torch.manual_seed(args.seed)
    model = BertForMaskedLM(config)
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = mask(rows)
        return {name: batch[name] for name in ("input_ids", "labels")}

    clock = Clock(args.warmup, args.steps)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=args.steps,
            per_device_train_batch_size=args.rows,
            learning_rate=args.lr,
            weight_decay=args.weight_decay,
            warmup_steps=max(1, args.steps // 10),
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            use_cpu=True,
            seed=args.seed,
            **SETTINGS,
        )
        trainer = make(
            model=model,
            args=settings,
            data_collator=collate,
            train_dataset=examples(args.work / "train.txt", tokenizer, args.seq_len),
            callbacks=[Ticker(clock, args.rows * args.seq_len)],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    clock.report(heldout_loss=heldout_loss(model, args.work, args.rows))


if __name__ == "__main__":
    train(side_arguments(__doc__), layers=4)
