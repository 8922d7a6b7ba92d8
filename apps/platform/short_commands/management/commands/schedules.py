"""``manage.py schedules``, for ``manage.py switchyard schedules``."""

from apps.platform.schedules.commands.schedules import Command as Command
