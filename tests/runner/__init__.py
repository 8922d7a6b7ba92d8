"""The runs of ``bin/test`` once its programs are there: checks, and the tests in parts beside each other.

Read ``arguments``, ``parts``, ``plan``, ``lanes``, ``__main__``; by the plugin ``outcomes`` pytest tells what became of
each test. ``arguments`` runs before there is an environment: it needs nothing but Python.
"""
