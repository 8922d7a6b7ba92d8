"""The command ``alerts`` under its short name."""

from apps.platform.alerts.commands.alerts import Command as Command
