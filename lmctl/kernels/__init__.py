"""CPU kernels for what torch has none: each one plain in torch, and compiled by numba where it is installed."""
