"""Inference with a finished model: likelihoods, generation, and the suites of `lmctl eval`."""
