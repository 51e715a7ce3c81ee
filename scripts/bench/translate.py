"""lmctl against `transformers.Seq2SeqTrainer`: translation, pairs of many lengths, on a CPU.

As mlm.py; by default a Transformer of 3 + 3 layers of width 256 and 64 pairs a step, dropout 0.1, no label smoothing.
Both sides put pairs of like length into a batch. Without --data the pairs are number words, English and German.

    python scripts/bench/translate.py
    python scripts/bench/translate.py --data pairs.tsv        # a pair a line, a tab between its sides
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mlm import HELDOUT_ROWS, number_of, train_tokenizer
from turns import Side, ours, take_turns, turns_parser

from lmctl.data.numbers import Numbers


def pairs(data: Path | None) -> list[tuple[str, str]]:
    """Text and translation, each pair once."""
    if data is None:
        numbers = Numbers("en", "de", size=20_000, valid_share=0.05)
        found: Iterable[list[str]] = (list(row.texts) for row in numbers.rows("train"))
    else:
        found = (line.split("\t")[:2] for line in data.read_text(encoding="utf-8").splitlines() if "\t" in line)
    return list(dict.fromkeys((one, other) for one, other in found))


def prepare(args: Namespace, work: Path) -> None:
    """Write the work folder; every twentieth pair is held out."""
    every = pairs(args.data)
    held, train = every[::20], [pair for place, pair in enumerate(every) if place % 20]
    for name, part in (("train", train), ("valid", held)):
        (work / f"{name}.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in part), encoding="utf-8")
    tokenizer = train_tokenizer([text for pair in train for text in pair], work / "tokenizer")
    pad, sep = (number_of(tokenizer, piece) for piece in ("[PAD]", "[SEP]"))
    held = held[:HELDOUT_ROWS]

    def padded(texts: list[str], filler: int) -> np.ndarray:
        ids = [[*text.ids[: args.seq_len - 1], sep] for text in tokenizer.encode_batch(texts, add_special_tokens=False)]
        width = max(map(len, ids))
        return np.array([row + [filler] * (width - len(row)) for row in ids])

    sources = padded([one for one, _ in held], pad)
    labels = padded([other for _, other in held], -100)
    np.savez(work / "heldout.npz", input_ids=sources, attention_mask=(sources != pad).astype(np.int64), labels=labels)


def main() -> None:
    p = turns_parser(__doc__)
    p.set_defaults(model="transformer_mt", rows=64)
    args = p.parse_args()
    words = ["mix=translate", "data=parallel", "data.path=train.tsv", "data.valid_path=valid.tsv"]
    sides = {
        "lmctl": ours(*words, "mix.tasks.translate.objective.label_smoothing=0"),
        "Trainer": Side("peer_translate.py"),
    }
    take_turns(args, sides, lambda work: prepare(args, work))


if __name__ == "__main__":
    main()
