"""``manage.py runscheduler``, for ``manage.py switchyard runscheduler``."""

from apps.platform.schedules.commands.runscheduler import Command as Command
