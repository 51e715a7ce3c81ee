"""lmctl against `transformers.Trainer`: masked-language-model pre-training of a BERT on a CPU.

Both sides read the same text with the same tokenizer, train the same network (by default 4 x 256, 30,522 rows of
vocabulary, dropout 0.1) on the same number of rows with the same optimiser, and are judged on the same held-out rows.
They run in turn, each in a process of its own with the same number of threads. The main figure is real (non-padding)
tokens per CPU-second in the steady state, CPU time counted over all threads: on a machine that has other work too it is
far steadier than wall time.

    python scripts/bench/mlm.py                                                # some minutes; 20 steps, five times
    python scripts/bench/mlm.py --model bert_base --precision bf16 --rows 8
    python scripts/bench/mlm.py --steps 60 --data my.txt --only Trainer
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
from common import full_rows
from tokenizers import BertWordPieceTokenizer, Tokenizer
from turns import Side, ours, take_turns, turns_parser

TOKENIZER_SIZE = 8192
HELDOUT_ROWS = 64
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def paragraphs(data: Path | None) -> list[str]:
    """The text's paragraphs, each on one line, and each once: manuals repeat themselves."""
    if data is None:
        from pydoc_data.topics import topics

        text = "\n\n".join(topics.values())
    else:
        text = data.read_text(encoding="utf-8")
    lines = (" ".join(part.split()) for part in text.split("\n\n"))
    return [line for line in dict.fromkeys(lines) if line]


def train_tokenizer(texts: list[str], folder: Path) -> Tokenizer:
    """A WordPiece tokenizer, written so that transformers loads it too."""
    wordpiece = BertWordPieceTokenizer()
    wordpiece.train_from_iterator(texts, vocab_size=TOKENIZER_SIZE, show_progress=False)
    folder.mkdir()
    wordpiece.save(str(folder / "tokenizer.json"))
    config = {f"{name}_token": token for name, token in SPECIAL.items()}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def mask_heldout(texts: list[str], tokenizer: Tokenizer, seq_len: int, path: Path) -> None:
    """Cut held-out rows and mask them as BERT does: of 15 % of the tokens 80 % hidden, 10 % random, 10 % kept."""
    special = {token: tokenizer.get_vocab()[token] for token in SPECIAL.values()}
    rows = heldout_rows(texts, tokenizer, seq_len, special["[CLS]"])
    rng = np.random.default_rng(0)
    chosen = (rng.random(rows.shape) < 0.15) & ~np.isin(rows, list(special.values()))
    fate = rng.random(rows.shape)
    random = rng.integers(len(special), tokenizer.get_vocab_size(), rows.shape)
    inputs = np.where(chosen & (fate < 0.8), special["[MASK]"], np.where(chosen & (fate >= 0.9), random, rows))
    np.savez(path, input_ids=inputs, labels=np.where(chosen, rows, -100))


def number_of(tokenizer: Tokenizer, piece: str) -> int:
    """The number of a piece that the tokenizer has."""
    number = tokenizer.token_to_id(piece)
    assert number is not None
    return number


def heldout_rows(texts: list[str], tokenizer: Tokenizer, seq_len: int, first: int | None) -> np.ndarray:
    """Full rows of held-out text, beginning with the token `first` if any."""
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    sep = number_of(tokenizer, "[SEP]")
    rows = full_rows((text.ids for text in encoded), seq_len, first, sep)[:HELDOUT_ROWS]
    if not len(rows):
        raise SystemExit("the text is too short: a twentieth of it does not fill one row of --seq-len tokens")
    return rows


def split(args: Namespace, work: Path) -> tuple[list[str], Tokenizer]:
    """Write both texts, of which every twentieth paragraph is held out, and a tokenizer; returns what is held out, and
    the tokenizer."""
    texts = paragraphs(args.data)
    held = texts[::20]  # from all over the text: its end may be of another kind
    train = [text for place, text in enumerate(texts) if place % 20]
    (work / "train.txt").write_text("\n\n".join(train), encoding="utf-8")
    (work / "valid.txt").write_text("\n\n".join(held), encoding="utf-8")
    return held, train_tokenizer(train, work / "tokenizer")


def prepare(args: Namespace, work: Path) -> None:
    """Write the work folder."""
    held, tokenizer = split(args, work)
    mask_heldout(held, tokenizer, args.seq_len, work / "heldout.npz")


def text_words(args: Namespace) -> list[str]:
    """The work folder's text in lmctl's words. Sides run in the work folder."""
    return [
        "data=text",
        "data.path=train.txt",
        "data.valid_path=valid.txt",
        "data.layout=blank_line_between_documents",
        f"model.pad_vocabulary_to={args.vocabulary}",
        f"model.attention_dropout={args.dropout}",
    ]


def main() -> None:
    args = turns_parser(__doc__).parse_args()
    sides = {"lmctl": ours("mix=mlm", *text_words(args)), "Trainer": Side("peer_mlm.py")}
    take_turns(args, sides, lambda work: prepare(args, work))


if __name__ == "__main__":
    main()
