"""``bin/demo``: the whole yard on one machine, started, fed, shown and stopped by one process that loads no Django."""
