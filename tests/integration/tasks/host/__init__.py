"""A project with tasks written for ``django-tasks-db``, and settings that run them there or here."""
