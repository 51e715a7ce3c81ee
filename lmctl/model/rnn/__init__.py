"""Recurrent networks: as `PreTrainedModel`s, which transformers itself lacks, and as trainable networks.

Their specs are `lmctl.model.recurrent`, `recurrent_classifier` and `recurrent_mt`.
"""

LANGUAGE_MODEL = "lmctl_rnn_lm"
CLASSIFIER = "lmctl_rnn_classifier"
SEQ2SEQ = "lmctl_rnn_seq2seq"
TYPES = (LANGUAGE_MODEL, CLASSIFIER, SEQ2SEQ)
"""Their model types, as in config.json."""
