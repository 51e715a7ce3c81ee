"""`lmctl score`: log-probabilities of lines, good/bad pairs, rescoring of n-best lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from lmctl.config.groups import Run
from lmctl.config.schema import FORMAT, FORMATS, one_of, positive
from lmctl.config.table import MISSING, key, same
from lmctl.config.use_schema import BATCH, CASE, CASES, MODEL_PATH
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.json_lines import emit, parsed
from lmctl.core.paths import Place, ResultFile
from lmctl.runner.base import Runner

if TYPE_CHECKING:
    from lmctl.inference.input_lines import Placed
    from lmctl.inference.load import Loaded
    from lmctl.inference.nbest import Lists, Tuned

AS_TEXT = "mode=lines scores its lines as text, whatever they look like"
MODES = ("auto", "lines", "pairs", "nbest")


@dataclass(frozen=True)
class ScoreConfig:
    """Root config of `lmctl score`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    mode: str = key(
        "auto", "lines, pairs (good<TAB>bad) or nbest (jsonl: id, ref, hyps); auto: by the first line that is not blank"
    )
    file: Optional[Place] = key(None, "what to score; null: standard input")
    dev: Optional[Place] = key(None, "nbest: jsonl on which weight and word bonus are tuned")
    case: str = key("as_is", CASE)
    out: Optional[ResultFile] = key(None, "nbest: file for the chosen hypotheses, one line each")
    batch: int = key(32, "texts at a time", BATCH)
    seq_len: Optional[int] = key(None, "positions per row; null: as in training, or what the model takes, at most 1024")
    format: str = key("text", FORMAT)
    runner: Runner = same(Run, "runner")

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)
        one_of(MODES, mode=self.mode)
        one_of(CASES, case=self.case)
        positive(batch=self.batch)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")


class Score(Verb[ScoreConfig]):
    purpose = "Log-probabilities of lines, good/bad pairs, and rescoring of n-best lists of speech recognition."
    examples = (
        "lmctl score model_path=runs/mine file=sentences.txt",
        "lmctl score model_path=runs/mine mode=pairs file=pairs.tsv",
        "lmctl score model_path=runs/mine mode=nbest dev=dev.jsonl file=test.jsonl",
    )
    often = (
        "model_path", "file", "mode", "dev", "batch", "seq_len",
    )  # fmt: skip
    schema = ScoreConfig
    words = ("model_path", "file")

    def run(self, config: ScoreConfig) -> None:
        """Print the scores of the mode; texts are streamed, except n-best lists."""
        from lmctl.inference.input_lines import count_lines, first_not_blank, placed

        first, lines = first_not_blank(placed(config.file))
        mode = config.mode
        if mode == "auto":
            mode = "lines" if first is None else guess(first)
            lines = _plain_text_only(lines) if mode == "lines" else lines
        if mode == "nbest" and config.dev is None:
            raise ConfigError("n-best lists need others to tune the weight and the word bonus on", "give dev=...")
        if mode != "nbest" and (config.dev or config.out):
            raise ConfigError(
                f"dev and out are for n-best lists, and this is mode={mode}", "mode=nbest, or leave them out"
            )

        from lmctl.inference.heads import refuse_classifier
        from lmctl.inference.load import load, need
        from lmctl.inference.progress import inputs_done
        from lmctl.train.display import Display, quiet_libraries

        quiet_libraries()
        loaded = load(config.model_path, config.runner)
        refuse_classifier(loaded, "it says how likely labels are, not texts")
        need(loaded, ("decoder", "encoder"), "score")
        if mode == "nbest":
            _nbest(loaded, lines, config)
            return
        pairs = mode == "pairs"
        with inputs_done(Display(), "scoring", count_lines(config.file) * (1 + pairs), "texts"):
            (_pairs if pairs else _lines)(loaded, lines, config)


def guess(line: Placed) -> str:
    """Detect the mode from the first line that is not blank: JSON with hypotheses, a pair as JSON or two columns, plain
    text. DataError if it starts like JSON and is neither."""
    if not line.text.lstrip().startswith("{"):
        sides = line.text.split("\t")
        return "pairs" if len(sides) == 2 and all(side.strip() for side in sides) else "lines"
    try:
        row = parsed(line.text)
    except ValueError as error:
        raise DataError(f"{line.where}: {error}", AS_TEXT) from None
    if (mode := _mode_of(row)) is None:
        keys = ", ".join(row) or "none"
        raise DataError(f"{line.where}: neither a pair nor an n-best list: its keys are {keys}", AS_TEXT)
    return mode


def _mode_of(row: Any) -> str | None:
    """The mode of a JSON object: an n-best list, a pair, or neither."""
    from lmctl.inference.pairs import KEYS

    if "hyps" in row:
        return "nbest"
    return "pairs" if any(key in row for keys in KEYS for key in keys) else None


def _plain_text_only(lines: Iterator[Placed]) -> Iterator[Placed]:
    """Pass plain text lines on; DataError at one that is a pair or an n-best list as JSON, which must not be scored as
    text."""
    for line in lines:
        if line.text.lstrip().startswith("{"):
            with suppress(ValueError):  # plain text that starts with a brace
                if _mode_of(parsed(line.text)):
                    raise DataError(f"{line.where}: JSON among lines of text", AS_TEXT)
        yield line


def _lines(loaded: Loaded, lines: Iterator[Placed], config: ScoreConfig) -> None:
    """A table: log-probability in nats, tokens (end token included), nats per token, the line."""
    from lmctl.inference.letter_case import cased
    from lmctl.inference.likelihood import texts

    scored, shown = tee(line.text for line in lines)
    scores = texts(loaded, (cased(line, config.case) for line in scored), config.batch, loaded.row(config.seq_len))
    header = "logprob\ttokens\tper_token\ttext"
    for row, (nats, line) in enumerate(zip(scores, shown, strict=True), start=1):
        total = float(nats.sum())
        mean = total / max(1, len(nats))
        if config.format == "json":
            emit({"row": row, "logprob": total, "tokens": len(nats), "per_token": mean, "text": line})
            continue
        if row == 1:
            print(header)
        print(f"{total:.4f}\t{len(nats)}\t{mean:.4f}\t{on_one_line(line)}", flush=True)


def _pairs(loaded: Loaded, lines: Iterator[Placed], config: ScoreConfig) -> None:
    """A table: both log-probabilities in nats, whether the good sentence has the higher one, both sentences; then the
    accuracy."""
    from lmctl.inference.pairs import judge, pairs_in
    from lmctl.train.display import Display

    right = count = 0
    for verdict in judge(loaded, pairs_in(lines), config.batch, loaded.row(config.seq_len), config.case):
        is_right, (good, bad) = verdict.good > verdict.bad, verdict.pair
        right, count = right + is_right, count + 1
        if config.format == "json":
            sides = {"good": good, "bad": bad, "logprob_good": verdict.good, "logprob_bad": verdict.bad}
            emit({"row": count, **sides, "right": is_right})
            continue
        if count == 1:
            print("good\tbad\tright\ttext_good\ttext_bad")
        texts = f"{on_one_line(good)}\t{on_one_line(bad)}"
        print(f"{verdict.good:.4f}\t{verdict.bad:.4f}\t{int(is_right)}\t{texts}", flush=True)
    if count:
        Display().say(f"accuracy {right / count:.4f} of {count:,} pairs")


def _nbest(loaded: Loaded, lines: Iterator[Placed], config: ScoreConfig) -> None:
    """Word error rates of both sets, before and after rescoring; the chosen hypotheses are written to `out`."""
    from lmctl.core.files import write_text
    from lmctl.inference.input_lines import is_standard_input, placed
    from lmctl.inference.nbest import collected, tune, with_lm
    from lmctl.train.display import Display

    assert config.dev is not None
    name = "standard input" if is_standard_input(config.file) else str(config.file)
    sets = [collected(placed(config.dev), config.dev), collected(lines, name)]
    with Display().watching():
        dev, test = with_lm(loaded, sets, config.batch, loaded.row(config.seq_len), config.case)
    tuned = tune(dev)
    rows = [_rates(name, lists, tuned) for name, lists in (("dev", dev), ("file", test))]
    if config.format == "json":
        for row in rows:
            emit(row | {"weight": tuned.weight, "bonus": tuned.bonus})
    else:
        print("\t".join(rows[0]))
        for row in rows:
            print("\t".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
        print(f"weight {tuned.weight:g}  word bonus {tuned.bonus:g}  (tuned on dev)")
    if config.out is not None:
        chosen = test.chosen(*tuned).tolist()
        best = [u.texts[place] for u, place in zip(test.utterances, chosen, strict=True)]
        write_text(Path(config.out), "".join(f"{on_one_line(text)}\n" for text in best))


def _rates(name: str, lists: Lists, tuned: Tuned) -> dict[str, Any]:
    from lmctl.inference.nbest import rescored

    return {
        "set": name,
        "utterances": len(lists.utterances),
        "words": lists.reference_words,
        **rescored(lists, tuned),
    }


def on_one_line(text: str) -> str:
    """`text` with tabs and line breaks replaced by spaces."""
    return " ".join(text.split()) if any(mark in text for mark in "\t\n\r") else text
