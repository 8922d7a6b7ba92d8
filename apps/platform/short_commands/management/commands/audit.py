"""The command ``audit`` under its short name."""

from apps.platform.audit.commands.audit import Command as Command
