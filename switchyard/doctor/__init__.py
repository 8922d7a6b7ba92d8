"""``manage.py switchyard doctor``: defects of a running yard, each with its likely cause and a remedy."""
