"""The peer of clm.py: what the library's `run_clm.py` does, one stream of text cut into rows."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from common import MODELS, full_rows, side_parser
from peer import train
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel


def gpt2(args: Namespace, tokenizer: Any) -> Any:
    sizes = MODELS[args.model]
    torch.manual_seed(args.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=args.vocabulary,
            n_positions=max(args.seq_len, 1024),
            n_embd=sizes.hidden,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            resid_pdrop=args.dropout,
            embd_pdrop=args.dropout,
            attn_pdrop=args.dropout,
            bos_token_id=tokenizer.sep_token_id,
            eos_token_id=tokenizer.sep_token_id,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )


def main() -> None:
    args = side_parser(__doc__).parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.work / "tokenizer")
    paragraphs = (args.work / "train.txt").read_text(encoding="utf-8").split("\n\n")
    encoded = tokenizer(paragraphs, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    rows = torch.from_numpy(full_rows(encoded, args.seq_len, None, tokenizer.sep_token_id))

    def collate(rows: list[torch.Tensor]) -> dict[str, Any]:
        ids = torch.stack(rows)
        return {"input_ids": ids, "labels": ids}

    train(args, gpt2(args, tokenizer), list(rows), collate)


if __name__ == "__main__":
    main()
