"""``manage.py queues``, for ``manage.py switchyard queues``."""

from apps.platform.operations.commands.queues import Command as Command
