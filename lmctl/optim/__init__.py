"""Group `optim`: optimisers, their parameter groups and weight decay."""
