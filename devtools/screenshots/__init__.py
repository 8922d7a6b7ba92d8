"""Pictures of the operations room, taken in a browser: ``python -m devtools.screenshots``."""
