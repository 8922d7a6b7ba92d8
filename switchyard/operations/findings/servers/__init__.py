"""Findings about the servers: the only one, the masters of a cluster, sentinels; and errors of a database."""
