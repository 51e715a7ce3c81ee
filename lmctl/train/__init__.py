"""Carrying a plan out: processes, data, the loop, checkpoints, the record."""
