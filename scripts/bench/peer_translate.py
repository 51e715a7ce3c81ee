"""The peer of translate.py: what the library's `run_translation.py` does, pairs of like length in a batch."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from common import MODELS, side_parser
from peer import train
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, MarianConfig, MarianMTModel, Trainer


def marian(args: Namespace, tokenizer: Any) -> Any:
    sizes = MODELS[args.model]
    torch.manual_seed(args.seed)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        decoder_vocab_size=len(tokenizer),
        encoder_layers=sizes.layers,
        decoder_layers=sizes.layers,
        d_model=sizes.hidden,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=4 * sizes.hidden,
        decoder_ffn_dim=4 * sizes.hidden,
        max_position_embeddings=512,
        dropout=args.dropout,
        attention_dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        init_std=sizes.hidden**-0.5,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return MarianMTModel(config)


def main() -> None:
    args = side_parser(__doc__).parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.work / "tokenizer")
    model = marian(args, tokenizer)
    pairs = [line.split("\t") for line in (args.work / "train.tsv").read_text(encoding="utf-8").splitlines()]
    sources, targets = (
        tokenizer(list(side), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for side in zip(*pairs, strict=True)
    )
    room, end = args.seq_len - 1, [tokenizer.sep_token_id]
    data = [
        {"input_ids": s[:room] + end, "labels": t[:room] + end, "length": max(len(s), len(t))}
        for s, t in zip(sources, targets, strict=True)
    ]
    pad = DataCollatorForSeq2Seq(tokenizer, model=model, pad_to_multiple_of=8)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = pad([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
        return batch

    def real(batch: dict[str, Any]) -> int:
        return int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())

    train(args, model, data, collate, real, Trainer, train_sampling_strategy="group_by_length")


if __name__ == "__main__":
    main()
