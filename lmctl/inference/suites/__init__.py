"""What `lmctl eval` measures: a module per suite, each with one function `evaluate(job)`."""
