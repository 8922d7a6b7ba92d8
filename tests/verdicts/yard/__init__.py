"""Settings, a yard and actors for situations that the overview is to name, and a process that reads it each second."""
