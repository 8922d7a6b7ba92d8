"""How a running demo shows itself: a live screen on a terminal, lines elsewhere."""
