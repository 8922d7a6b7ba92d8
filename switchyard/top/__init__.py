"""The overview and the lists of the operations room in a terminal."""
