"""The command line: parsing, help, running verbs and sweeps, and error messages."""
