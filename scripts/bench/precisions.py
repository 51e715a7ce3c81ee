"""lmctl's precisions against its own fp32 on a CPU: masked words, speed, memory and held-out loss.

As mlm.py, all sides being lmctl, by default with the 8,192 pieces that the tokenizer has.

    python scripts/bench/precisions.py --model bert_base --rows 8
    python scripts/bench/precisions.py --model bert_small
    python scripts/bench/precisions.py --model bert_small --isa AVX2        # as on a lesser CPU
"""

from __future__ import annotations

import mlm
from turns import Side, ours, take_turns, turns_parser

COMPARED = ("fp32", "bf16", "int8", "int8 precision.float_products=bf16", "fp16")


def side(name: str, words: list[str]) -> Side:
    """lmctl with the precision and the settings of `name`."""
    precision, *settings = name.split()
    return ours("mix=mlm", *words, *settings, precision=precision)


def main() -> None:
    p = turns_parser(__doc__)
    p.add_argument("--precisions", nargs="+", default=COMPARED, help="the first is what others are compared to")
    p.set_defaults(vocabulary=mlm.TOKENIZER_SIZE, model="bert_base")
    args = p.parse_args()
    sides = {name: side(name, mlm.text_words(args)) for name in args.precisions}
    at = f"precisions {args.model}"
    take_turns(args, sides, lambda work: mlm.prepare(args, work), against=args.precisions[0], at=at)


if __name__ == "__main__":
    main()
