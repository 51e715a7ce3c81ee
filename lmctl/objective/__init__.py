"""Group `objective`: what the network is asked to predict, and how rows of text are made into that question."""
