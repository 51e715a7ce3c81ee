"""Config: the shape of each verb's config, and the one way from a config node to a component."""
