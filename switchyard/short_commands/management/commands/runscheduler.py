"""The command ``runscheduler`` under its short name."""

from switchyard.schedules.commands.runscheduler import Command as Command
