"""Group `schedule`: learning rate schedules, as a factor of the peak over the share of the budget that is spent."""
