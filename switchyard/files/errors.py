"""Errors of storages off the local disk."""

from __future__ import annotations

import errno

from switchyard.broker.errors import SwitchyardError

# https://www.postgresql.org/docs/current/errcodes-appendix.html
POSTGRES_DISK_FULL = "53100"


class StorageError(SwitchyardError, OSError):
    """A storage did not carry out an operation. An ``OSError``, as that of a disk: actors retry both."""


class StorageUnavailable(StorageError):
    """The storage did not answer, or refused this user.

    ``operation``, for example ``read results/…``, holds no address and no secret; ``cause`` is the client's name or
    code.
    """

    def __init__(self, operation: str, cause: str) -> None:
        self.operation, self.cause = operation, cause
        super().__init__(
            f"the storage did not {operation}: {cause}; check its address and credentials, and that it is up"
        )


class DiskFull(StorageError):
    """A file was not written, because its disk is full. Nothing lies under its name."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"file {name} was not written: {cause}; free space, nothing has to be restarted")


def is_full(error: Exception) -> bool:
    """Return whether an error of a file or of a database says that a disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "disk is full" in str(error) or getattr(error.__cause__, "sqlstate", "") == POSTGRES_DISK_FULL
