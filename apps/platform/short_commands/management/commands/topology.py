"""``manage.py topology``, for ``manage.py switchyard topology``."""

from apps.platform.deployment.commands.topology import Command as Command
