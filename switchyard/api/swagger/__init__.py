"""The API's page, with django-ninja's scripts from this server.

``"ninja"`` in ``INSTALLED_APPS`` would do it as well, and cost each process of a yard 0.35 s of start and 12 MB: Django
imports the package of an app, and this one loads pydantic and Django's test client.
"""
