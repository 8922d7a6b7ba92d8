"""A Valkey server for development and tests, run as a child process with an append-only file.

It keeps true: the server ends with its parent, and nothing of production imports this package. Its file is
``server``. Public: ``server.EmbeddedServer`` and ``python -m switchyard.embedded``.
"""
