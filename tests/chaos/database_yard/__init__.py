"""Settings, a yard and actors for pools whose database is taken away: one pool of each kind, and one without it."""
