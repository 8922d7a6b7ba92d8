"""Errors of tasks."""

from __future__ import annotations

from switchyard.middleware.errors import PermanentFailure


class ResultRefused(PermanentFailure):
    """A task ended and returned what cannot be kept; its cause says why. A retry would do the work again."""

    def __init__(self, path: str, fact: str) -> None:
        super().__init__(f"task {path}: {fact}; return what JSON can hold, at most 1 MiB of it")
