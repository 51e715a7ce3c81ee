"""What `prepare` and `peek` have in common: they are about texts, as a training run with the same config reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lmctl.config.groups import PrepareConfig
from lmctl.config.verb import NOTHING_TO_SAVE, OWN_TEXT, Verb

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lmctl.train.prepare import Prepared

P = TypeVar("P", bound=PrepareConfig)


class TextVerb(Verb[P]):
    """A verb whose work begins with tokenizer and tokens."""

    interrupted = NOTHING_TO_SAVE
    alone = OWN_TEXT

    def read(self, cfg: DictConfig) -> P:
        """As it stands, but with checkpoints in the place of runs that are not finished."""
        from lmctl.train.unfinished import with_models

        return super().read(with_models(cfg, lambda: self.check(cfg)))

    def prepared(self, config: P) -> Prepared:
        """Tokenizer and tokens of all tasks, from the cache or made now."""
        from lmctl.train.display import Display, quiet_libraries
        from lmctl.train.prepare import prepare

        quiet_libraries()
        display = Display()
        with display.watching():
            return prepare(config.tokenizer, config.mix, config.cache_dir, display.say)
