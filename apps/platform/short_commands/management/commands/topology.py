"""The command ``topology`` under its short name."""

from apps.platform.deployment.commands.topology import Command as Command
