"""The parts of `scripts/reliability.py`: the cells, kills, faults, and the table."""
