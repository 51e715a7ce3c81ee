"""Group `runner`: on which devices a run works, and in how many processes."""
