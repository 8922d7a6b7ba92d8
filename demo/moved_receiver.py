"""The demo's webhook endpoints follow its receiver, when the port of last time was taken by another program."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from demo.private_files import read_private, write_private


def follow_receiver(kept: Path, receiver: str) -> int:
    """Give the endpoints that earlier runs registered the receiver's address of today; return how many changed.

    Deliveries that wait for their next attempt then reach it as well.

    Args:
        kept: File that remembers which endpoints the demo registered.
        receiver: Root of the receiver, without a slash at the end.
    """
    from apps.product.webhooks.models import Endpoint

    known = read_private(kept)
    moved = {
        kind: {**endpoint, "url": receiver + urlsplit(endpoint["url"]).path}
        for kind, endpoint in known.items()
        if not endpoint["url"].startswith(f"{receiver}/")
    }
    for endpoint in moved.values():
        Endpoint.objects.filter(pk=endpoint["id"]).update(url=endpoint["url"])
    if moved:
        write_private(kept, known | moved)
    return len(moved)
