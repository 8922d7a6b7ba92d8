"""The command ``queues`` under its short name."""

from apps.platform.operations.commands.queues import Command as Command
