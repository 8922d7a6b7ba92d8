"""Audit log: a row for each act of a person on the yard, from page, API or command; and the ready roles.

It keeps true: the row is committed before the act begins, and an act without one is refused, but for those that are
urgent while the database is away. A row holds no secrets.

Files in reading order: ``services`` (around each act), ``models``, ``roles``, ``queries``, ``views``. Public:
``services.act`` and ``services.Who``.
"""
