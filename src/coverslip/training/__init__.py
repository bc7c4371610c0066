"""Everything that learns: schedules, optimizers, features, heads, the loop, regimes and recipes."""
