"""lmctl against `transformers.Trainer`: distilling a masked language model on a CPU.

A 4 x 256 BERT teaches one of 2 x 256 (30,522-row vocabularies, dropout 0.1): half of the loss is the objective's own,
half the divergence from the teacher's answers at temperature 2. The peer is the usual subclass of `Trainer` with a KL
term on whole logits; `--kd-on masked` lets it take the divergence at masked positions only. Both sides read the same
text with the same tokenizer and the same teacher, and are judged on the same held-out rows; they run in turn, each in a
process of its own.

    python scripts/bench/distill.py                        # some minutes; 20 steps, three times
    python scripts/bench/distill.py --steps 60 --repeats 5 --data my.txt
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import mlm
from common import VOCABULARY_ROWS
from turns import take_turns, turns_parser

SIDES = {"lmctl": "lmctl_distill.py", "peer": "peer_distill.py"}


def arguments() -> Namespace:
    p = turns_parser((__doc__ or "").partition("\n\n")[0], SIDES)
    p.add_argument("--kd-on", choices=("all", "masked"), default="all", help="where the peer compares")
    return p.parse_args()


def make_teacher(work: Path) -> None:
    """An untrained teacher: what it knows does not matter here."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    torch.manual_seed(99)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = BertConfig(vocab_size=VOCABULARY_ROWS, pad_token_id=tokenizer.pad_token_id, **sizes)
    BertForMaskedLM(config).save_pretrained(work / "teacher")
    tokenizer.save_pretrained(work / "teacher")


def main() -> None:
    args = arguments()

    def prepare(work: Path) -> None:
        mlm.prepare(args, work)
        make_teacher(work)

    take_turns(args, SIDES, prepare, {"KD_ON": args.kd_on})


if __name__ == "__main__":
    main()
