"""Thumbnail rendering: decode a picture that :mod:`containers` has accepted, turn it upright, scale it down."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

from PIL import Image

from apps.product.images.containers import MAX_PIXELS, Facts
from apps.product.images.errors import PictureRefused

ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})
# Modes that are scaled unconverted; others (palettes, bits) would be sampled coarsely.
SMOOTH_MODES = ("L", "RGB", "RGBA", "CMYK")
WEBP_QUALITY = 82

# Exceptions of Pillow's readers on broken or hostile content.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    RuntimeError,
    ZeroDivisionError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished thumbnail."""

    content: bytes
    content_type: str
    suffix: str
    width: int
    height: int


def render(content: bytes, facts: Facts, width: int, height: int) -> Rendered:
    """Return the first frame, upright, within ``width`` by ``height``, in proportion, never enlarged.

    All metadata is dropped. The result is WebP, or PNG where it has transparency.

    Raises:
        PictureRefused: it cannot be decoded, or differs from its container data.
    """
    try:
        small = _decode(content, facts, width, height)
    except BROKEN as error:
        raise PictureRefused(f"cannot be decoded ({type(error).__name__})") from error
    return _encode(small)


def _decode(content: bytes, facts: Facts, width: int, height: int) -> Image.Image:
    # Pillow's own check of the pixel count only warns above its limit, and raises above twice that.
    Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS.values())
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    with Image.open(io.BytesIO(content), formats=[facts.format]) as opened:
        if opened.size != (facts.width, facts.height):
            raise PictureRefused("gives two different sizes")
        orientation = opened.getexif().get(ORIENTATION_TAG, 1)
        picture: Image.Image = opened
        if opened.mode not in SMOOTH_MODES or opened.has_transparency_data:
            picture = _smooth(opened)
        box = (height, width) if orientation in SIDEWAYS else (width, height)
        # Decodes a JPEG at a fraction of its size.
        picture.thumbnail(box, Image.Resampling.LANCZOS)
        turn = TURNS.get(orientation)
        return picture.transpose(turn) if turn is not None else picture.copy()


def _smooth(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode.startswith("I"):
        # 16 bits: a conversion would clip the values instead of scaling them.
        return picture.point(lambda level: level * (1 / 256)).convert("L")
    return picture.convert("RGB")


def _least_alpha(picture: Image.Image) -> float:
    least, _ = picture.getchannel("A").getextrema()
    return float(least)  # type: ignore[arg-type]  # a channel has one pair


def _encode(picture: Image.Image) -> Rendered:
    see_through = picture.mode == "RGBA" and _least_alpha(picture) < 255
    clean = picture if see_through else picture.convert("RGB")
    clean.info = {}
    content = io.BytesIO()
    if see_through:
        clean.save(content, "PNG", optimize=True)
        return Rendered(content.getvalue(), "image/png", "png", *clean.size)
    clean.save(content, "WEBP", quality=WEBP_QUALITY)
    return Rendered(content.getvalue(), "image/webp", "webp", *clean.size)
