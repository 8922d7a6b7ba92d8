"""The command ``doctor`` under its short name."""

from apps.platform.doctor.commands.doctor import Command as Command
