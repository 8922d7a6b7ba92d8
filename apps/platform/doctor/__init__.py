"""``manage.py doctor``: what is wrong with a yard, most likely why, and what to do next."""
