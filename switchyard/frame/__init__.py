"""Frame of every page of the operations room: base template, style sheet, menu, verdict strip, theme and keys."""
