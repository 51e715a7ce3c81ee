"""Base class of `prepare` and `peek`, which read the training data of a run with the same config."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lmctl.config.groups import PrepareConfig
from lmctl.config.verb import OWN_TEXT, Verb

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lmctl.train.prepare import Prepared

P = TypeVar("P", bound=PrepareConfig)


class TextVerb(Verb[P]):
    """A verb that starts from a tokenizer and token stores."""

    alone = OWN_TEXT

    def read(self, cfg: DictConfig) -> P:
        """The config, with paths of unfinished runs replaced by their checkpoints."""
        from lmctl.train.unfinished import with_models

        return super().read(with_models(cfg, lambda: self.check(cfg)))

    def prepared(self, config: P) -> Prepared:
        """Tokenizer and token stores of all tasks, cached or built now."""
        from lmctl.train.display import Display, quiet_libraries
        from lmctl.train.prepare import prepare

        quiet_libraries()
        display = Display()
        with display.watching():
            return prepare(config.tokenizer, config.mix, config.cache_dir, display.say)
