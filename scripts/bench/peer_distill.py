"""The peer of distill.py: a subclass of `transformers.Trainer` as one would write it by hand for DistilBERT's losses.

The teacher reads the same batch without gradients, the divergence of the softened distributions is added to the
model's own loss. `KD_ON=masked` keeps only masked positions for the divergence; the models compute logits everywhere.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
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


def examples(text: Path, tokenizer: Any, seq_len: int) -> list[dict[str, Any]]:
    """Full rows of the text, as tensors: the collator stacks those faster than lists."""
    paragraphs = text.read_text(encoding="utf-8").split("\n\n")
    encoded = tokenizer(paragraphs, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    rows = torch.from_numpy(full_rows(encoded, seq_len, tokenizer.cls_token_id, tokenizer.sep_token_id))
    special = torch.isin(rows, torch.tensor(tokenizer.all_special_ids)).long()
    return [{"input_ids": row, "special_tokens_mask": mask} for row, mask in zip(rows, special, strict=True)]


TEMPERATURE, HARD = 2.0, 0.5


class Distiller(Trainer):
    """Hinton et al. 2015 on top of the model's own loss."""

    def __init__(self, *args: Any, teacher: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval().requires_grad_(False)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        out = model(**inputs)
        with torch.no_grad():
            known = self.teacher(input_ids=inputs["input_ids"]).logits
        said = out.logits
        if os.environ["KD_ON"] == "masked":
            masked = inputs["labels"] != -100
            said, known = said[masked], known[masked]
        said, known = (logits.flatten(0, -2) / TEMPERATURE for logits in (said, known))
        soft = F.kl_div(F.log_softmax(said, -1), F.softmax(known, -1), reduction="batchmean") * TEMPERATURE**2
        loss = (1 - HARD) * soft + HARD * out.loss
        return (loss, out) if return_outputs else loss


class Ticker(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Tells the clock of every optimiser step."""

    def __init__(self, clock: Clock, tokens: int) -> None:
        self.clock, self.tokens = clock, tokens

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick(self.tokens)


def main() -> None:
    args = side_arguments(__doc__)
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(args.work / "tokenizer")
    config = BertConfig(
        vocab_size=VOCABULARY_ROWS,
        hidden_size=256,
        num_hidden_layers=2,
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
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            dataloader_drop_last=True,
            remove_unused_columns=False,
            logging_strategy="no",
            logging_nan_inf_filter=False,  # the filter inspects the loss at every step
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=args.seed,
        )
        teacher = BertForMaskedLM.from_pretrained(args.work / "teacher", attn_implementation="sdpa")
        trainer = Distiller(
            teacher=teacher,
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
    main()
