"""Recurrent networks, which transformers does not have: as `PreTrainedModel`s of its kind, and as networks that learn.

`lmctl.model.recurrent`, `recurrent_classifier` and `recurrent_mt` are their specifications.
"""

LANGUAGE_MODEL = "lmctl_rnn_lm"
CLASSIFIER = "lmctl_rnn_classifier"
SEQ2SEQ = "lmctl_rnn_seq2seq"
TYPES = (LANGUAGE_MODEL, CLASSIFIER, SEQ2SEQ)
"""Their model types, as they stand in config.json."""
