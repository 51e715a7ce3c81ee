"""Group `adversary`: how a micro-batch is made more difficult to learn from, and what is asked of the network there."""
