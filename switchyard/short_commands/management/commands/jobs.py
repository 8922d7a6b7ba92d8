"""The command ``jobs`` under its short name."""

from switchyard.jobs.commands.jobs import Command as Command
