"""Reads of the mails that the development mail server (``sink.py``) has stored."""

import datetime
import email
import email.policy
import re
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from switchyard.conf import switchyard_settings

SHOWN_MAILS = 50
# Shown of a mail that cannot be parsed.
RAW_BYTES = 64 * 1024
_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9]+\.eml")
# A mail's HTML may contain styles only: no scripts and no requests.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


Mail = dict[str, Any]
"""One mail of the mailbox, all of its content untrusted: ``name``, ``received_at`` and what :func:`_parsed` returns."""


def folder() -> Path:
    return switchyard_settings().state_dir / "mail"


def newest(search: str = "") -> list[Mail]:
    """Return the newest 50 mails; with a text, those of the newest 500 whose recipient or subject holds it."""
    names = sorted((path.name for path in (folder() / "new").glob("*.eml") if _NAME.fullmatch(path.name)), reverse=True)
    if not search:
        return _existing(names[:SHOWN_MAILS])
    found = _existing(names[:500])
    return [mail for mail in found if search.lower() in f"{mail.get('to', '')}\n{mail['subject']}".lower()]


def read(name: str) -> Mail | None:
    """Return one mail, or ``None`` when there is none of that name. One that cannot be parsed is its own text."""
    if not _NAME.fullmatch(name):
        return None
    try:
        raw = (folder() / "new" / name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        shown = _parsed(raw)
    except Exception as error:  # noqa: BLE001 - the parser fails in many ways; one mail must not hide the others
        text = str(raw[:RAW_BYTES], "utf-8", "replace")
        shown = {"subject": f"Unreadable mail ({type(error).__name__})", "text": text}
    received_at = datetime.datetime.fromtimestamp(int(name[:20]) / 1e9, tz=datetime.UTC)
    return {"name": name, "received_at": received_at, **shown}


def _parsed(raw: bytes) -> dict[str, str]:
    """Return the parts of a mail as text, its HTML for a sandboxed frame, whose links open in a new tab."""
    message = email.message_from_bytes(raw, _class=EmailMessage, policy=email.policy.default)
    html = _body(message, "html")
    head = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><base target="_blank">'
    parts = {
        "sender": parseaddr(_header(message, "From"))[1],
        "to": _header(message, "X-Envelope-To") or _header(message, "To"),
        "subject": _header(message, "Subject"),
        "message_id": _header(message, "Message-ID"),
        "text": _body(message, "plain"),
        "document": html and head + html,
    }
    # Some charsets decode to surrogates, which no page can hold.
    return {name: str(text.encode("utf-8", "replace"), "utf-8") for name, text in parts.items()}


def _existing(names: list[str]) -> list[Mail]:
    return [mail for mail in map(read, names) if mail is not None]


def _header(message: EmailMessage, name: str) -> str:
    return " ".join(str(message.get(name, "")).split())


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    if part is None:
        return ""
    raw = part.get_payload(decode=True)
    text = raw if isinstance(raw, bytes) else b""
    try:
        return text.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        return text.decode("utf-8", "replace")
