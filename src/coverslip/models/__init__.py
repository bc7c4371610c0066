"""Backbones, heads and their weights: from a name in the config to a network that classifies."""
