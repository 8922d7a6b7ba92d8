"""Actor of the images product."""

from typing import Any

import dramatiq

from apps.images import making


@dramatiq.actor(queue_name="images", store_results=True, search=("thumbnail_id",))
def make_thumbnail(thumbnail_id: int) -> dict[str, Any]:
    """Make one thumbnail. Safe to repeat: an existing thumbnail is returned again."""
    return making.make(thumbnail_id)
