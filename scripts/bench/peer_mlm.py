"""The peer of mlm.py: masked words with the library's own masking collator."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from common import MODELS, full_rows, side_parser
from peer import train
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling


def examples(text: Path, tokenizer: Any, seq_len: int) -> list[dict[str, Any]]:
    """Full rows of the text, as tensors: the collator stacks those faster than lists."""
    paragraphs = text.read_text(encoding="utf-8").split("\n\n")
    encoded = tokenizer(paragraphs, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    rows = torch.from_numpy(full_rows(encoded, seq_len, tokenizer.cls_token_id, tokenizer.sep_token_id))
    special = torch.isin(rows, torch.tensor(tokenizer.all_special_ids)).long()
    return [{"input_ids": row, "special_tokens_mask": mask} for row, mask in zip(rows, special, strict=True)]


def bert(args: Namespace, tokenizer: Any, layers: int | None = None) -> Any:
    """The untrained network of `args.model`, or one of so many `layers`."""
    sizes = MODELS[args.model]
    torch.manual_seed(args.seed)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=args.vocabulary,
            hidden_size=sizes.hidden,
            num_hidden_layers=layers or sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.hidden,
            hidden_dropout_prob=args.dropout,
            attention_probs_dropout_prob=args.dropout,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="sdpa",
        )
    )


def learn(args: Namespace, layers: int | None = None, **more: Any) -> None:
    """Train the network of `args.model`, or one of so many `layers`; `more`: arguments of `peer.train`."""
    tokenizer = AutoTokenizer.from_pretrained(args.work / "tokenizer")
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = mask(rows)
        return {name: batch[name] for name in ("input_ids", "labels")}

    data = examples(args.work / "train.txt", tokenizer, args.seq_len)
    train(args, bert(args, tokenizer, layers), data, collate, **more)


if __name__ == "__main__":
    learn(side_parser(__doc__).parse_args())
