"""``manage.py broker``, for ``manage.py switchyard broker``."""

from apps.platform.operations.commands.broker import Command as Command
