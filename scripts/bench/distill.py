"""lmctl against `transformers.Trainer`: distilling a masked language model on a CPU.

A 4 x 256 BERT teaches one of 2 x 256 (30,522-row vocabularies, dropout 0.1): half of the loss is the objective's own,
half the divergence from the teacher's answers at temperature 2. The peer is the usual subclass of `Trainer` with a KL
term on whole logits; `--kd-on masked` lets it take the divergence at masked positions only. Both sides read the same
text with the same tokenizer and the same teacher, and are judged on the same held-out rows; they run in turn, each in a
process of its own.

    python scripts/bench/distill.py                        # some minutes; 20 steps, five times
    python scripts/bench/distill.py --steps 60 --data my.txt
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import mlm
from common import MODELS
from turns import Side, ours, take_turns, turns_parser


def arguments() -> Namespace:
    p = turns_parser(__doc__)
    p.add_argument("--kd-on", choices=("all", "masked"), default="all", help="where the peer compares")
    return p.parse_args()


def make_teacher(args: Namespace, work: Path) -> None:
    """An untrained teacher: what it knows does not matter here."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    torch.manual_seed(99)
    sizes = MODELS[args.model]
    config = BertConfig(
        vocab_size=args.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.hidden,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForMaskedLM(config).save_pretrained(work / "teacher")
    tokenizer.save_pretrained(work / "teacher")


def main() -> None:
    args = arguments()

    def prepare(work: Path) -> None:
        mlm.prepare(args, work)
        make_teacher(args, work)

    words = ["mix=mlm", *mlm.text_words(args), "model.layers=2", "teacher=teacher"]
    sides = {"lmctl": ours(*words, verb="distill"), "Trainer": Side("peer_distill.py")}
    take_turns(args, sides, prepare, more={"KD_ON": args.kd_on})


if __name__ == "__main__":
    main()
