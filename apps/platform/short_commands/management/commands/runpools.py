"""``manage.py runpools``, for ``manage.py switchyard runpools``."""

from apps.platform.workers.commands.runpools import Command as Command
