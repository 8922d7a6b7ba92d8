"""Helpers for commands and admin pages of all apps: errors, help, read-only pages, numbers and times as text."""
