"""lmctl's precisions against its own fp32 on a CPU: masked words, speed, memory and held-out loss.

As mlm.py, all sides being lmctl, by default with the 8,192 pieces that the tokenizer has.

    python scripts/bench/precisions.py --model bert_base --rows 8
    python scripts/bench/precisions.py --model bert_small
    python scripts/bench/precisions.py --model bert_small --isa AVX2        # as on a lesser CPU
"""

from __future__ import annotations

import mlm
from turns import ours, take_turns, turns_parser

COMPARED = ("fp32", "bf16", "int8", "fp16")


def main() -> None:
    p = turns_parser(__doc__)
    p.add_argument("--precisions", nargs="+", default=COMPARED, help="the first is what the others are compared with")
    p.set_defaults(vocabulary=mlm.TOKENIZER_SIZE, model="bert_base")
    args = p.parse_args()
    words = ["mix=mlm", *mlm.text_words(args)]
    sides = {name: ours(*words, precision=name) for name in args.precisions}
    take_turns(
        args, sides, lambda work: mlm.prepare(args, work), against=args.precisions[0], at=f"precisions {args.model}"
    )


if __name__ == "__main__":
    main()
