"""Thumbnail rendering: decode a picture that :mod:`containers` has accepted, turn it upright, scale it down."""

import io
from dataclasses import dataclass

from PIL import Image

from apps.images.containers import BROKEN, Facts, open_picture
from apps.images.errors import PictureRefused

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
PREMULTIPLIED = "RGBa"
WEBP_QUALITY, WEBP_METHOD = 82, 4
# Above this, encoders trade some of the file's size for memory and time: noise of 4096 by 4096 pixels takes 430 MB as
# WebP by the default method, 230 MB by the frugal one, and a minute as an optimized PNG.
LARGE_PIXELS = 4_000_000
FRUGAL_METHOD = 2


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
    picture, orientation = _open(content, facts)
    box = (height, width) if orientation in SIDEWAYS else (width, height)
    # Decodes a JPEG at a fraction of its size.
    picture.thumbnail(box, Image.Resampling.LANCZOS)
    if picture.mode == PREMULTIPLIED:
        picture = picture.convert("RGBA")
    turn = TURNS.get(orientation)
    return picture.transpose(turn) if turn is not None else picture.copy()


def _open(content: bytes, facts: Facts) -> tuple[Image.Image, int]:
    """Return a picture in a mode that is scaled smoothly, and its EXIF orientation.

    What Pillow read a picture into is freed at the return, so that it is not held beside the scaled one.
    """
    opened = open_picture(content, facts.format)
    if opened.size != (facts.width, facts.height):
        raise PictureRefused("gives two different sizes")
    orientation = opened.getexif().get(ORIENTATION_TAG, 1)
    if opened.mode in SMOOTH_MODES and not opened.has_transparency_data:
        # A JPEG is not decoded yet; WebP's library keeps two more canvases with what it has decoded.
        return opened if facts.format != "WEBP" else opened.copy(), orientation
    picture: Image.Image = opened
    transparent = opened.has_transparency_data
    if transparent and opened.mode != "RGBA":
        picture = opened.convert("RGBA")
    del opened
    if transparent:
        # Pillow scales RGBA in this mode, beside the original.
        return picture.convert(PREMULTIPLIED), orientation
    if picture.mode.startswith("I"):
        # 16 bits: a conversion would clip the values instead of scaling them.
        return picture.point(lambda level: level * (1 / 256)).convert("L"), orientation
    return picture.convert("RGB"), orientation


def _encode(picture: Image.Image) -> Rendered:
    see_through = picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255)
    clean = picture if see_through or picture.mode == "RGB" else picture.convert("RGB")
    clean.info = {}
    content = io.BytesIO()
    is_large = clean.width * clean.height > LARGE_PIXELS
    if see_through:
        clean.save(content, "PNG", optimize=not is_large)
        return Rendered(content.getvalue(), "image/png", "png", *clean.size)
    clean.save(content, "WEBP", quality=WEBP_QUALITY, method=FRUGAL_METHOD if is_large else WEBP_METHOD)
    return Rendered(content.getvalue(), "image/webp", "webp", *clean.size)
