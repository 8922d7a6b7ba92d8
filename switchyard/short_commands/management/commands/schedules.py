"""The command ``schedules`` under its short name."""

from switchyard.schedules.commands.schedules import Command as Command
