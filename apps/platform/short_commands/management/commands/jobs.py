"""``manage.py jobs``, for ``manage.py switchyard jobs``."""

from apps.platform.jobs.commands.jobs import Command as Command
