"""Findings about the yard: the overview, ``manage.py doctor`` and every page say the same ones."""
