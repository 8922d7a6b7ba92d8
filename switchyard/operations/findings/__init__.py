"""Findings about the yard: the overview, ``manage.py switchyard doctor`` and every page say the same ones."""
