"""The peer: `transformers.Trainer` on the same work, as one would sensibly write it by hand.

Fast tokenizer, text cut into full rows so that nothing is padding (translations sorted by length instead), SDPA
attention, without a mask where nothing is padded (all ones would only keep it off its fast path), fused AdamW, no
logging.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from typing import Any

import transformers
from common import Clock, heldout_loss
from transformers import Trainer, TrainerCallback, TrainingArguments

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


class Ticker(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Tells the clock of every optimiser step, and of the real tokens of its batch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waiting = deque[int]()
        """Tokens of the batches that were made and not used yet: the Trainer makes them one ahead."""

    def counting(self, collate: Callable[..., dict[str, Any]], real: Callable[..., int]) -> Callable[..., Any]:
        """`collate`, with the tokens of each batch counted by `real`."""

        def counted(rows: Any) -> dict[str, Any]:
            batch = collate(rows)
            self.waiting.append(real(batch))
            return batch

        return counted

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick(self.waiting.popleft())


def train(
    args: Namespace,
    model: Any,
    data: Any,
    collate: Callable[..., dict[str, Any]],
    real: Callable[..., int] = lambda batch: batch["input_ids"].numel(),
    make: Callable[..., Any] = Trainer,
    **more: Any,
) -> None:
    """Train `model` with the trainer that `make` makes of `Trainer`'s arguments, and report. `real`: the tokens of a
    batch that are not padding; `more`: further settings of the trainer."""
    transformers.logging.set_verbosity_error()
    clock = Clock(args.warmup, args.steps)
    ticker = Ticker(clock)
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
            bf16=args.precision == "bf16",
            seed=args.seed,
            **(SETTINGS | more),
        )
        trainer = make(
            model=model,
            args=settings,
            data_collator=ticker.counting(collate, real),
            train_dataset=data,
            callbacks=[ticker],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    clock.report(heldout_loss=heldout_loss(model, args.work, args.rows))
