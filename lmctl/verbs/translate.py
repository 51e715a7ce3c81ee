"""`lmctl translate`: translate lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from lmctl.config.groups import Run
from lmctl.config.schema import positive
from lmctl.config.table import MISSING, key, same
from lmctl.config.use_schema import BATCH, BEAMS, LENGTH, MODEL_PATH
from lmctl.config.verb import Verb
from lmctl.core.paths import FreeText, Place
from lmctl.runner.base import Runner


@dataclass(frozen=True)
class TranslateConfig:
    """Root config of `lmctl translate`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    file: Optional[Place] = key(None, "text file with one text per line; null: standard input")
    prefix: FreeText = key("", "put before each line, for models trained with one (T5)")
    beams: int = key(5, "hypotheses kept at each step", BEAMS)
    length_penalty: float = key(1.0, "log-probability is divided by length to this power")
    max_new_tokens: Optional[int] = key(None, "longest translation, in pieces; null: twice the source and 20", LENGTH)
    batch: int = key(16, "lines at a time", BATCH)
    runner: Runner = same(Run, "runner")

    def __post_init__(self) -> None:
        positive(beams=self.beams, max_new_tokens=self.max_new_tokens, batch=self.batch)


class TranslateVerb(Verb[TranslateConfig]):
    purpose = "Translate lines, from a file or standard input to standard output, line for line."
    examples = (
        "lmctl translate model_path=runs/mt < source.en",
        "lmctl translate model_path=runs/mt file=source.en beams=10 length_penalty=0.6",
        "lmctl translate model_path=Helsinki-NLP/opus-mt-en-de file=source.en",
    )
    often = (
        "model_path", "file", "beams", "length_penalty", "max_new_tokens", "prefix", "batch",
    )  # fmt: skip
    schema = TranslateConfig
    words = ("model_path", "file")

    def run(self, config: TranslateConfig) -> None:
        """Print the translation of each line; an empty line stays empty."""
        from lmctl.inference.input_lines import comes_once, incoming, lines_of

        lines = incoming(config.file, "text", "file=..., or lines on standard input")

        from lmctl.inference.decode import translate
        from lmctl.inference.heads import refuse_classifier
        from lmctl.inference.length_check import LinePosition, cut_lines
        from lmctl.inference.load import load, need
        from lmctl.inference.progress import inputs_done
        from lmctl.train.display import Display, quiet_libraries

        quiet_libraries()
        loaded = load(config.model_path, config.runner)
        refuse_classifier(loaded, "it writes no text")
        need(loaded, ("seq2seq",), "translate")
        display, place, total = Display(), LinePosition(config.file), 0
        if config.file is None or comes_once(config.file):
            lines = cut_lines(loaded, lines, place, display.say, config.prefix)
        else:  # a file can be read twice: check all of it before the first output
            total = sum(1 for _ in cut_lines(loaded, lines_of(config.file), place, display.say, config.prefix))
        how = (config.batch, config.beams, config.length_penalty, config.max_new_tokens, config.prefix)
        with inputs_done(display, "translating", total, "lines"):
            for line in translate(loaded, lines, *how):
                print(line, flush=True)
