"""An app and settings with which ``runpool`` runs the tasks that benchmarks send, on the broker with all middleware."""
