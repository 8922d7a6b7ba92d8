"""The command ``topology`` under its short name."""

from switchyard.deployment.commands.topology import Command as Command
