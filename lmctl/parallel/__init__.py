"""The workers of a run: processes and their launcher, process groups, and how gradients are shared between them."""
