"""The sample work: real requests to the yard's API, and what becomes of each."""
