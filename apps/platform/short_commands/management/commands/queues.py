"""The command ``queues`` under its short name."""

from apps.platform.queues.commands.queues import Command as Command
