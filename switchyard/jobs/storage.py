"""File storage on disk in which a name appears only when the file is complete."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from switchyard.files.addresses import DiskFull, is_full


class WholeFileStorage(FileSystemStorage):
    """Django's file storage, writing to a ``.part`` file that is synced and renamed.

    A full disk or a killed process leaves nothing under the final name. Left-over ``.part`` files may be deleted.
    """

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        # A symbolic link could lead anywhere; this storage creates none.
        if not Path(self.path(name)).resolve().is_relative_to(Path(self.location).resolve()):
            raise FileNotFoundError(f"{name}: leads out of the storage; remove the link")
        opened: File[Any] = super()._open(name, mode)  # type: ignore[misc]  # the stubs leave it out
        return opened

    def _save(self, name: str, content: File[Any]) -> str:
        target = Path(self.path(name))
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as out:
                for chunk in content.chunks():
                    out.write(chunk if isinstance(chunk, bytes) else str(chunk).encode())
                out.flush()
                os.fsync(out.fileno())
            if self.file_permissions_mode is not None:
                part.chmod(self.file_permissions_mode)
            part.rename(target)
        except OSError as error:
            if is_full(error):
                raise DiskFull(name, error.strerror or type(error).__name__) from error
            raise
        finally:
            part.unlink(missing_ok=True)
        return name.replace("\\", "/")
