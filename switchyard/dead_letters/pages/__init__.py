"""Content of the pages of dead letters."""
