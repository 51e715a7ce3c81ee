"""Group `tokenizer`: subword, word and character tokenizers, trained on the run's text or loaded."""
