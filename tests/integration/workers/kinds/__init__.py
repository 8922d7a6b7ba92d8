"""An app with async and generic actors and their callbacks, for a pool of threads and one of processes."""

# List in which they note what they did.
DONE = "kinds:done"
