"""The command ``runscheduler`` under its short name."""

from apps.platform.schedules.commands.runscheduler import Command as Command
