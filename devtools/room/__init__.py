"""A yard with something on every page of the operations room, for the browser tests and the screenshots."""
