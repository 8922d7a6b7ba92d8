"""``manage.py doctor``, for ``manage.py switchyard doctor``."""

from apps.platform.doctor.commands.doctor import Command as Command
