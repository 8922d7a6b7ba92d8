"""The command ``history`` under its short name."""

from switchyard.history.commands.history import Command as Command
