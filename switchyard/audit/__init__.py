"""Audit log: a row for each act of a person on the yard, from page, API or command; and the rights of roles and groups.

It keeps true: the row is committed before the act begins, and an act without one is refused, but for those that are
urgent while the database is away. An act on a queue for which the person's right does not hold is refused here, once
for all ways. A row holds no secrets.

Files in reading order: ``services`` (around each act; notes, roles and reads), ``models``, ``views``, ``admin``.
Public: ``services.act`` and ``services.Who``.
"""
