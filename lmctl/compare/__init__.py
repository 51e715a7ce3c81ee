"""Comparing runs: reading what they left, tables, and an offline HTML page."""
