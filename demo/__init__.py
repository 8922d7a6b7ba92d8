"""``bin/demo``: start, show and stop the whole yard on one machine, from one process that does not load Django."""
