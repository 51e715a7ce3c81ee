"""Data parallelism: worker processes, their launcher, process groups, and gradient averaging."""
