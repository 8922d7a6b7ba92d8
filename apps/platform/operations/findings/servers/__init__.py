"""Findings about the broker's servers: the only one, the masters of a cluster, sentinels, RabbitMQ."""
