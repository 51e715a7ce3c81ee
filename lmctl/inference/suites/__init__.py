"""The suites of `lmctl eval`: one module each, with a function `evaluate(job)`."""
