"""The command ``schedules`` under its short name."""

from apps.platform.schedules.commands.schedules import Command as Command
