"""The parts of `scripts/golden.py`: the inputs, the cells, and what is kept of each."""
