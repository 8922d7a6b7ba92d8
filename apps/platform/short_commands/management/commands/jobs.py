"""The command ``jobs`` under its short name."""

from apps.platform.jobs.commands.jobs import Command as Command
