"""Findings about the servers: the only one, several of them, sentinels; and errors of a database."""
