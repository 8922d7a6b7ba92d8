"""The command ``alerts`` under its short name."""

from switchyard.alerts.commands.alerts import Command as Command
