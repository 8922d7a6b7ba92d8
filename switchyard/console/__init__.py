"""Helpers for commands and admin pages of all apps: errors, help, read-only pages, numbers and times as text.

It keeps true: all commands have one way of errors, exit codes, help with examples and ``--json``. Files in reading
order: ``commands``, ``formatting``, ``room_view``, ``queue_rights``, ``links``, ``lists``, ``export``.
"""
