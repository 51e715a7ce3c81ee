"""Group `objective`: training objectives: the targets, and how rows of text are collated into batches with them."""
