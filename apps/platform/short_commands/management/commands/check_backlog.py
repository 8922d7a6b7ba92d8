"""``manage.py check_backlog``, for ``manage.py switchyard check_backlog``."""

from apps.platform.operations.commands.check_backlog import Command as Command
