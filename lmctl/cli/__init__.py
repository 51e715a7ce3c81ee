"""The command line: verbs, help, sweeps, and what becomes of errors."""
