"""Group `compression`: in what form gradients cross the network between the workers of a run."""
