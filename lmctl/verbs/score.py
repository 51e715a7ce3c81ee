"""`lmctl score`: how likely a language model finds lines, pairs, or the hypotheses of a recogniser."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lmctl.config.build import build, check_root
from lmctl.config.use_schema import ScoreConfig
from lmctl.core.errors import ConfigError
from lmctl.core.places import Where

if TYPE_CHECKING:
    from lmctl.use.load import Loaded


def run(cfg: DictConfig) -> None:
    """Print what the mode calls for; texts of any number stream through, except n-best lists."""
    config = check_root(cfg, ScoreConfig)
    where = build(cfg.runner, Where)

    from lmctl.use.lines import incoming

    lines = incoming(config.file, "text", "file=..., or lines on standard input")
    first = next(lines, None)
    if first is None:
        return
    mode = guess(first) if config.mode == "auto" else config.mode
    if mode == "nbest" and config.dev is None:
        raise ConfigError("n-best lists need others to tune the weight and the word bonus on", "give dev=...")
    if mode != "nbest" and (config.dev or config.out):
        raise ConfigError(f"dev and out are for n-best lists, and this is mode={mode}", "mode=nbest, or leave them out")

    from lmctl.run.display import quiet_libraries
    from lmctl.use.load import load, need

    quiet_libraries()
    loaded = load(config.model_path, where)
    need(loaded, ("decoder", "encoder"), "score")
    {"lines": _lines, "pairs": _pairs, "nbest": _nbest}[mode](loaded, chain([first], lines), config)


def guess(line: str) -> str:
    """The mode that a first line calls for: JSON with hypotheses, JSON or two columns of a pair, plain text."""
    if line.lstrip().startswith("{"):
        return "nbest" if '"hyps"' in line else "pairs"
    return "pairs" if line.count("\t") == 1 else "lines"


def _lines(loaded: Loaded, lines: Iterator[str], config: ScoreConfig) -> None:
    """A table: log-probability in nats, pieces (the end counted), nats per piece, the line itself."""
    from lmctl.use.case import cased
    from lmctl.use.likelihood import texts

    scored, shown = tee(lines)
    scores = texts(loaded, (cased(line, config.case) for line in scored), config.batch, loaded.row(config.seq_len))
    print("logprob\ttokens\tper_token\ttext")
    for nats, line in zip(scores, shown, strict=True):
        total = float(nats.sum())
        print(f"{total:.4f}\t{len(nats)}\t{total / max(1, len(nats)):.4f}\t{line}", flush=True)


def _pairs(loaded: Loaded, lines: Iterator[str], config: ScoreConfig) -> None:
    """A table: both log-probabilities in nats, whether the good one is likelier, both sentences; then the accuracy."""
    from lmctl.run.display import Display
    from lmctl.use.pairs import judge, read_pairs

    right = count = 0
    print("good\tbad\tright\ttext_good\ttext_bad")
    pairs = read_pairs(lines, config.file or "standard input")
    for verdict in judge(loaded, pairs, config.batch, loaded.row(config.seq_len), config.case):
        is_right = verdict.good > verdict.bad
        right, count = right + is_right, count + 1
        print(f"{verdict.good:.4f}\t{verdict.bad:.4f}\t{int(is_right)}\t{verdict.pair.good}\t{verdict.pair.bad}")
    if count:
        Display().say(f"accuracy {right / count:.4f} of {count:,} pairs")


def _nbest(loaded: Loaded, lines: Iterator[str], config: ScoreConfig) -> None:
    """Word error rates on both sets, before and after; the chosen hypotheses go to `out`."""
    from lmctl.core.files import write_text
    from lmctl.use.lines import lines_of
    from lmctl.use.nbest import read_lists, rescored, tune, with_lm

    assert config.dev is not None
    sets = [read_lists(lines_of(config.dev), config.dev), read_lists(lines, config.file or "standard input")]
    dev, test = with_lm(loaded, sets, config.batch, loaded.row(config.seq_len), config.case)
    tuned = tune(dev)
    print("set\tutterances\twords\twer_before\twer_after\twer_oracle")
    for name, lists in (("dev", dev), ("file", test)):
        rates = "\t".join(f"{value:.2f}" for value in rescored(lists, tuned).values())
        print(f"{name}\t{len(lists.utterances)}\t{lists.reference_words}\t{rates}")
    print(f"weight {tuned.weight:g}  word bonus {tuned.bonus:g}  (tuned on dev)")
    if config.out is not None:
        chosen = test.chosen(*tuned).tolist()
        best = [u.texts[place] for u, place in zip(test.utterances, chosen, strict=True)]
        write_text(Path(config.out), "".join(f"{text}\n" for text in best))
