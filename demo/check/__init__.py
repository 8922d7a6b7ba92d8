"""``bin/demo --check``: every outcome of the sample work, expected beside seen."""
