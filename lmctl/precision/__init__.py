"""Group `precision`: mixed and low precision, the number formats of parameters, matrix products and updates."""
