"""The command ``queues`` under its short name."""

from switchyard.queues.commands.queues import Command as Command
