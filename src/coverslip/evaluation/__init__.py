"""Numbers, intervals and decisions: plain numpy, no torch."""
