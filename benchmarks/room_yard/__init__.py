"""The yard with a million waiting jobs and a hundred thousand dead letters, for measurements of the room's pages."""
