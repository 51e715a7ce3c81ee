"""Group `schedule`: the learning rate as a share of its peak, over the share of the budget that is spent."""
