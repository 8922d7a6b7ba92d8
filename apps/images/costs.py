"""Memory that rendering a picture takes, computed from its container data before anything is decoded."""

from __future__ import annotations

from apps.images.containers import Facts
from apps.images.errors import PictureRefused

# Highest memory of a picture beside its file. PNG, GIF and WebP stay below it by their numbers of pixels (measured:
# 250 MB of PNG and GIF, 265 MB of WebP, whose library holds its canvas three times); a JPEG is computed here.
MAX_PICTURE_BYTES = 300_000_000

# Pillow holds a pixel of any colour in four bytes.
COLOUR_BYTES, GREY_BYTES = 4, 1
# Pillow decodes a JPEG to at least this multiple of the box, one side at least.
SPARE_FACTOR = 2
JPEG_FRACTIONS = (8, 4, 2, 1)
# libjpeg's own memory beside the coefficients, measured: 1 % of them.
COEFFICIENTS_FACTOR = 1.02
# A finished thumbnail beside its WebP encoder.
ENCODING_BYTES = 14


def refuse_if_costly(facts: Facts, box: tuple[int, int]) -> None:
    """Refuse a picture that would take more than 300 MB when it is fitted into a box.

    Args:
        box: Width and height, swapped if the picture is turned by a quarter.

    Raises:
        PictureRefused: it is too costly; a smaller thumbnail of it may not be.
    """
    cost = cost_bytes(facts, box)
    if cost > MAX_PICTURE_BYTES:
        kind = "progressive " if facts.coefficient_bytes else ""
        fact = (
            f"is a {kind}{facts.format} of {facts.width} by {facts.height} pixels in {facts.components} components, "
            f"which takes {cost / 1e6:.0f} MB for this thumbnail, {MAX_PICTURE_BYTES / 1e6:.0f} MB are the most"
        )
        raise PictureRefused(fact, "make it smaller" + (", or save it as a baseline JPEG" if kind else ""))


def cost_bytes(facts: Facts, box: tuple[int, int]) -> int:
    """Return the memory that a JPEG takes beside its file; 0 for other formats, which their pixels limit."""
    if facts.format != "JPEG":
        return 0
    width, height = _fitted(facts, box)
    pixel_bytes = GREY_BYTES if facts.components == 1 else COLOUR_BYTES
    spare = min(facts.width // (SPARE_FACTOR * box[0]), facts.height // (SPARE_FACTOR * box[1]))
    fraction = next((fraction for fraction in JPEG_FRACTIONS if spare >= fraction), 1)
    rows = -(-facts.height // fraction)
    decoded = -(-facts.width // fraction) * rows * pixel_bytes
    decoding = int(facts.coefficient_bytes * COEFFICIENTS_FACTOR) + decoded
    # Scaled first across and then down, the original beside both.
    scaling = decoded + width * (rows + height) * pixel_bytes
    return max(decoding, scaling, width * height * ENCODING_BYTES)


def _fitted(facts: Facts, box: tuple[int, int]) -> tuple[int, int]:
    ratio = min(box[0] / facts.width, box[1] / facts.height, 1)
    return max(1, round(facts.width * ratio)), max(1, round(facts.height * ratio))
