"""The command ``doctor`` under its short name."""

from switchyard.doctor.commands.doctor import Command as Command
