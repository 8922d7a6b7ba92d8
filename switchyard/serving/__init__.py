"""Start of the web: ``manage.py switchyard runweb``, one set of uvicorn's options for demo, containers and services.

It keeps true: what only the application knows is bounded by :mod:`switchyard.api.request_limits`, heads by h11, the
rest by a proxy. The only file is ``server``.
"""
