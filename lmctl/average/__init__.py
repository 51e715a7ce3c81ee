"""Group `average`: weights that are averaged over the steps, and validated and exported in place of the newest ones."""
