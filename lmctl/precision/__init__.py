"""Group `precision`: the number formats of parameters, matrix products and updates."""
