"""Findings about the servers: the only one, several of them, sentinels, RabbitMQ; and errors of a database."""
