"""The wheel ``switchyard``: the repository's broker, middleware and platform apps under one import root."""
