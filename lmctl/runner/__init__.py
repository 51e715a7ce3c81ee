"""Group `runner`: on which devices a run works, and with how many workers."""
