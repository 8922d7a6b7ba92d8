"""Deployment files rendered from the declared yard: one module for each file or part of a file."""
