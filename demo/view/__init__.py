"""Output of a running demo: a live screen on a terminal, lines elsewhere."""
