"""The architectures that live in lmctl and not in transformers: recurrent networks."""

from __future__ import annotations

LANGUAGE_MODEL = "lmctl_rnn_lm"
CLASSIFIER = "lmctl_rnn_classifier"
SEQ2SEQ = "lmctl_rnn_seq2seq"
TYPES = (LANGUAGE_MODEL, CLASSIFIER, SEQ2SEQ)
"""Their model types, as they stand in config.json."""


def register() -> None:
    """Make all of them known to transformers' Auto classes; may be called again."""
    from lmctl.model import recurrent_classifier_hf, recurrent_hf, recurrent_seq2seq_hf

    for module in (recurrent_hf, recurrent_classifier_hf, recurrent_seq2seq_hf):
        module.register()
