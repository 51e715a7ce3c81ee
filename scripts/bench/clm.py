"""lmctl against `transformers.Trainer`: pre-training of a GPT-2 on a CPU.

As mlm.py; by default 4 x 256, 8,192 rows of vocabulary, no dropout. Both sides read the text as one stream, in which a
row's tokens see those of the document before.

    python scripts/bench/clm.py
    python scripts/bench/clm.py --precision bf16
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
from mlm import heldout_rows, split, text_words
from turns import Side, ours, take_turns, turns_parser

STREAM = ("mix=clm", "mix.tasks.corpus.objective.separate_documents=false")


def prepare(args: Namespace, work: Path) -> None:
    """Write the work folder."""
    held, tokenizer = split(args, work)
    rows = heldout_rows(held, tokenizer, args.seq_len, None)
    np.savez(work / "heldout.npz", input_ids=rows, labels=rows)


def main() -> None:
    p = turns_parser(__doc__)
    p.set_defaults(model="gpt2_mini", vocabulary=8192, dropout=0.0)
    args = p.parse_args()
    sides = {"lmctl": ours(*STREAM, *text_words(args)), "Trainer": Side("peer_clm.py")}
    take_turns(args, sides, lambda work: prepare(args, work))


if __name__ == "__main__":
    main()
