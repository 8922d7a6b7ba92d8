"""``manage.py switchyard doctor``: defects of a running yard, each with its likely cause and a remedy.

The findings are those of :mod:`switchyard.operations.findings`; only the command and its printing are here.
"""
