"""The lowest layer: data types, errors and small utilities that every other package may import. Imports nothing else of
lmctl."""
