"""Check of mail without a timeout: a server that hangs would hold its slot for ever."""

from __future__ import annotations

from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.module_loading import import_string

from switchyard.conf import switchyard_settings

# One of these in the settings means that somebody sends mail; Django has a default for each.
SMTP_SETTINGS = ("EMAIL_BACKEND", "EMAIL_HOST", "EMAIL_HOST_USER", "EMAIL_PORT")


def endless_mail() -> list[CheckMessage]:
    """E006: ``EMAIL_TIMEOUT`` is not set in a project that sends mail through SMTP, so sending may block for ever."""
    timeout = getattr(settings, "EMAIL_TIMEOUT", None)
    if timeout or not _sends_by_smtp():
        return []
    fact = f"EMAIL_TIMEOUT is {timeout!r}, so a mail server that hangs holds its slot for ever"
    hint = "Set EMAIL_TIMEOUT to seconds, for example 8, in the settings."
    return [Error(fact, hint, "settings", "switchyard.E006")]


def _sends_by_smtp() -> bool:
    """Return whether mail goes through SMTP, and the settings, the alerts or the project's own code send some."""
    try:
        backend = import_string(settings.EMAIL_BACKEND)
    except ImportError:  # Django's own error names it, at the first mail
        return False
    if not (isinstance(backend, type) and issubclass(backend, SmtpBackend)):
        return False
    if any(settings.is_overridden(name) for name in SMTP_SETTINGS):  # type: ignore[misc]
        return True
    if any(url.startswith("mailto:") for url in switchyard_settings().alert_urls):
        return True
    return any(b"django.core.mail" in path.read_bytes() for folder in own_folders() for path in folder.rglob("*.py"))


def own_folders() -> list[Path]:
    """Return the folders of this project's code: installed packages are not checked."""
    base = Path(switchyard_settings().base_dir)
    folders = [base / package for package in ("project", "middleware", "broker")]
    folders += [Path(app.path) for app in apps.get_app_configs()]
    return [
        folder
        for folder in folders
        if folder.is_dir() and folder.is_relative_to(base) and "site-packages" not in folder.parts
    ]
