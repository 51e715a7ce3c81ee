"""The inputs of `scripts/fuzz.py`: a module for each kind of reader, a function for each reader."""
