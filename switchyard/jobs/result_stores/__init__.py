"""Stores of results beside the jobs' records."""
