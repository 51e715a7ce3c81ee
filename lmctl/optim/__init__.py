"""Group `optim`: the rule that turns gradients into updates."""
