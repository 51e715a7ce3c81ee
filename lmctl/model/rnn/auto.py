"""Recurrent networks in transformers' Auto classes."""

from __future__ import annotations


def register() -> None:
    """Make all of them known; each file registers its own when it is imported."""
    from lmctl.model.rnn import classifier, language_model, seq2seq  # noqa: F401
