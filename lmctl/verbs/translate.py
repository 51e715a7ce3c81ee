"""`lmctl translate`: lines in, lines out."""

from __future__ import annotations

from omegaconf import DictConfig

from lmctl.config.build import build, check_root
from lmctl.config.use_schema import TranslateConfig
from lmctl.runner.base import Where


def run(cfg: DictConfig) -> None:
    """Print the translation of each line; an empty line stays an empty line."""
    config = check_root(cfg, TranslateConfig)
    where = build(cfg.runner, Where)

    from lmctl.use.lines import comes_once, incoming, lines_of

    lines = incoming(config.file, "text", "file=..., or lines on standard input")

    from lmctl.run.display import Display, quiet_libraries
    from lmctl.use.decode import translate
    from lmctl.use.heads import refuse_classifier
    from lmctl.use.load import load, need
    from lmctl.use.room import Place, cut_lines

    quiet_libraries()
    loaded = load(config.model_path, where)
    refuse_classifier(loaded, "it writes no text")
    need(loaded, ("seq2seq",), "translate")
    say, place = Display().say, Place(config.file)
    if config.file is None or comes_once(config.file):
        lines = cut_lines(loaded, lines, place, say, config.prefix)
    else:  # a file can be read twice: what is wrong with it is said before the work begins
        for _ in cut_lines(loaded, lines_of(config.file), place, say, config.prefix):
            pass
    for line in translate(
        loaded,
        lines,
        config.batch,
        config.beams,
        config.length_penalty,
        config.max_new_tokens,
        config.prefix,
    ):
        print(line, flush=True)
