"""Settings, a yard and actors for pools in which well-behaved jobs run beside misbehaving ones."""
