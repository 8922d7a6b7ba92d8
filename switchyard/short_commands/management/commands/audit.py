"""The command ``audit`` under its short name."""

from switchyard.audit.commands.audit import Command as Command
