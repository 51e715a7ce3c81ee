"""Processes that read exported files back with the runtime of other programs.

Nothing here imports the rest of lmctl: what a stranger has is the files and the runtime.
"""
