"""The command ``retention`` under its short name."""

from apps.platform.retention.commands.retention import Command as Command
