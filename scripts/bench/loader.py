"""How long the loader takes for a window (the rows of an optimiser step), by objective and augmentation.

A step waits for its rows only if it is faster than this, as the next window is made while it runs. Processor time of
one thread, medians, on text that comes with Python and lmctl.

    python scripts/bench/loader.py                              # 16 x 128 and 64 x 512
    python scripts/bench/loader.py --shapes 8x1024 --only denoise
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from statistics import median

from lmctl.augment.base import Augment
from lmctl.augment.char_noise import CharNoise
from lmctl.augment.shuffle import Shuffle
from lmctl.augment.span_crop import SpanCrop
from lmctl.augment.token_noise import TokenNoise
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.batch import Family
from lmctl.data.base import Source
from lmctl.data.numbers import Numbers
from lmctl.data.pydocs import PyDocs
from lmctl.data.pydocs_topics import PyDocsTopics
from lmctl.mix.mix import Mix, Task
from lmctl.mix.stream import MixStream, Position
from lmctl.objective.base import Material, Objective
from lmctl.objective.classify import Classify
from lmctl.objective.clm import CausalLM
from lmctl.objective.denoise import Denoise
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.objective.mlm_sop import MaskedLMAndSentenceOrder
from lmctl.objective.rtd import ReplacedTokens
from lmctl.objective.translate import Translate
from lmctl.tokenizer.wordpiece import WordPiece
from lmctl.train.prepare import Prepared, prepare

MIXES: dict[str, tuple[Objective, Source, Family]] = {
    "mlm": (MaskedLM(), PyDocs(), "encoder"),
    "mlm, whole words": (MaskedLM(whole_words=True), PyDocs(), "encoder"),
    "mlm_nsp": (MaskedLMAndNextSentence(), PyDocs(), "encoder"),
    "mlm_sop": (MaskedLMAndSentenceOrder(), PyDocs(), "encoder"),
    "rtd": (ReplacedTokens(), PyDocs(), "encoder"),
    "clm": (CausalLM(), PyDocs(), "decoder"),
    "denoise, t5": (Denoise(), PyDocs(), "seq2seq"),
    "denoise, bart": (Denoise("bart"), PyDocs(), "seq2seq"),
    "translate": (Translate(), Numbers(), "seq2seq"),
    "classify": (Classify(), PyDocsTopics(), "encoder"),
}
AUGMENTS: dict[str, Augment] = {
    "word_dropout": WordDropout(),
    "token_noise": TokenNoise(),
    "span_crop": SpanCrop(),
    "shuffle": Shuffle(),
    "char_noise": CharNoise(),
}
"""Tried with `mlm`."""
SECONDS = 0.5


def milliseconds(name: str, augment: Augment | None, rows: int, seq_len: int, found: Prepared) -> float:
    """Processor time of a window."""
    objective, source, family = MIXES[name]
    rewrite = augment.rewriter(found.tokenizer, found.vocabulary) if augment else None
    material = Material("task", found.corpora["task"].train, found.vocabulary, family, seq_len, rows, rewrite)
    stream = MixStream(
        Mix({"task": Task(objective, source)}), {"task": objective.examples(material)}, 1, rows, tokens=None
    )
    times: list[float] = []
    at, end = stream.window(Position(), 0.0, None, 0, 1).after, time.process_time() + SECONDS
    while len(times) < 5 or time.process_time() < end:
        begun = time.process_time()
        at = stream.window(at, 0.0, None, 0, 1).after
        times.append(time.process_time() - begun)
    return median(times) * 1e3


def prepared(names: list[str], cache: str) -> Mapping[str, Prepared]:
    """Tokenised text of each mix."""
    return {
        name: prepare(WordPiece(), Mix({"task": Task(MIXES[name][0], MIXES[name][1])}), cache, lambda line: None)
        for name in names
    }


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(description=summary, epilog=details.partition("\n\n")[0])
    p.add_argument("--shapes", nargs="+", default=["16x128", "64x512"], help="rows x positions of a window")
    p.add_argument("--only", default="", help="mixes with this word in their names")
    args = p.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in args.shapes]
    names = [name for name in MIXES if args.only in name]
    cells: list[tuple[str, str | None]] = [(name, None) for name in names]
    cells += [("mlm", augment) for augment in AUGMENTS if "mlm" in names]
    with tempfile.TemporaryDirectory() as cache:
        found = prepared(names, cache)
        print(f"| ms of one thread | {' | '.join(args.shapes)} |\n|---|{'---:|' * len(shapes)}")
        for name, augment in cells:
            options = AUGMENTS[augment] if augment else None
            spent = [milliseconds(name, options, rows, seq_len, found[name]) for rows, seq_len in shapes]
            print(f"| {name}{f', {augment}' if augment else ''} |", " | ".join(f"{ms:.2f}" for ms in spent), "|")


if __name__ == "__main__":
    main()
