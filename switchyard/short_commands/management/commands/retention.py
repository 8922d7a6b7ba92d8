"""The command ``retention`` under its short name."""

from switchyard.retention.commands.retention import Command as Command
