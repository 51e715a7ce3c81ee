"""Runs of several processes: sweeps, stages, and what else is made of whole runs."""
