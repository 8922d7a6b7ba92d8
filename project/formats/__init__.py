"""Date formats of this project, for each language."""
