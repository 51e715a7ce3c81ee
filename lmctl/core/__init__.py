"""The ground floor: nouns, errors and small tools that every other room may use. Imports nothing else of lmctl."""
