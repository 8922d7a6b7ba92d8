"""Thumbnails are upright, fit their box, keep what shows through, and carry no metadata."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib

import pytest
from PIL import Image, PngImagePlugin

from apps.images.containers import Facts, read_facts
from apps.images.errors import PictureRefused
from apps.images.rendering import Rendered, render
from tests.factories.pictures import chunk, encode, gradient, png_header, webp, webp_canvas

SECRET = b"canary"


def thumbnail(content: bytes, width: int = 100, height: int = 100) -> tuple[Rendered, Image.Image]:
    rendered = render(content, read_facts(content), width, height)
    with Image.open(io.BytesIO(rendered.content)) as opened:
        opened.load()
        return rendered, opened.copy()


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize(
    ("box", "size"),
    [((100, 100), (100, 62)), ((4096, 50), (80, 50)), ((1, 1), (1, 1)), ((4096, 4096), (320, 200)), ((320, 1), (2, 1))],
)
def test_it_fits_its_box_keeps_its_proportions_and_is_never_enlarged(format_name, box, size) -> None:
    rendered, picture = thumbnail(encode(gradient(), format_name), *box)

    assert picture.size == (rendered.width, rendered.height)
    assert abs(picture.width - size[0]) <= 1 and abs(picture.height - size[1]) <= 1
    assert (rendered.content_type, rendered.suffix) == ("image/webp", "webp")


@pytest.mark.parametrize("format_name", ["PNG", "WEBP"])
def test_what_shows_through_stays_so_in_a_png(format_name: str) -> None:
    source = gradient(mode="RGBA")
    source.putalpha(Image.linear_gradient("L").resize(source.size))

    rendered, picture = thumbnail(encode(source, format_name, lossless=True))

    assert (rendered.content_type, picture.format or "PNG", picture.mode) == ("image/png", "PNG", "RGBA")
    low, high = picture.getchannel("A").getextrema()
    assert low < 10 and high > 245


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_it_is_upright_whatever_way_the_camera_was_held(orientation: int, format_name: str) -> None:
    upright = Image.new("RGB", (160, 80), "blue")
    upright.paste("red", (0, 0, 80, 40))
    undo = {
        1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"],
        5: ["TRANSPOSE"], 6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"],
    }  # fmt: skip
    held = upright
    for turn in undo[orientation]:
        held = held.transpose(Image.Transpose[turn])
    exif = Image.Exif()
    exif[0x0112] = orientation

    _, picture = thumbnail(encode(held, format_name, exif=exif, quality=95), 80, 80)

    assert picture.size == (80, 40)
    corners = [picture.convert("RGB").getpixel(at) for at in ((10, 10), (70, 10), (10, 30), (70, 30))]
    assert [corner[0] > corner[2] for corner in corners] == [True, False, False, False]


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_no_metadata_survives(format_name: str, mode: str) -> None:
    if format_name == "JPEG" and mode == "RGBA":
        mode = "L"
    source = gradient(mode=mode)
    if mode == "RGBA":
        source.putalpha(100)
    exif = Image.Exif()
    exif[0x010E] = exif[0x8298] = SECRET.decode()
    exif.get_ifd(0x8825)[1] = "N"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    options = {"pnginfo": text} if format_name == "PNG" else {"xmp": SECRET, "comment": SECRET}
    content = encode(source, format_name, exif=exif, icc_profile=SECRET * 10, **options)
    assert SECRET in content

    rendered, picture = thumbnail(content)

    assert SECRET not in rendered.content
    assert not dict(picture.getexif()) and "icc_profile" not in picture.info and "xmp" not in picture.info


def test_of_an_animation_the_first_frame_is_shown() -> None:
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue", "green")]
    for format_name in ("GIF", "WEBP", "PNG"):
        _, picture = thumbnail(encode(frames[0], format_name, save_all=True, append_images=frames[1:]))

        assert picture.convert("RGB").getpixel((25, 25))[0] > 200


BROKEN = {
    "rows that are no zlib": png_header(10, 10) + chunk(b"IDAT", b"rubbish") + chunk(b"IEND"),
    "too few rows": png_header(10, 1000) + chunk(b"IDAT", b"x\x9c\x03\0\0\0\0\x01") + chunk(b"IEND"),
    "no rows": png_header(10, 10) + chunk(b"IEND"),
    "a webp frame of nothing": webp(b"VP8X", webp_canvas(10, 10), b"VP8L\x06\0\0\0\x2f\0\0\0\0\0"),
    "a webp of another size inside": webp(b"VP8X", webp_canvas(10, 10), encode(gradient(), "WEBP")[12:]),
    "a text chunk that explodes": png_header(1, 1)
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    + chunk(b"IEND"),
}


@pytest.mark.parametrize("most_s", [1.0, pytest.param(0.2, marks=pytest.mark.long)])
@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_decoded_is_refused_quickly(what: str, most_s: float) -> None:
    content = BROKEN[what]
    started = time.process_time()

    with pytest.raises(PictureRefused):
        render(content, read_facts(content), 10, 10)

    assert time.process_time() - started < most_s


def test_pillow_refuses_a_bomb_that_got_past_the_first_look() -> None:
    content = png_header(9_000, 9_000) + chunk(b"IDAT") + chunk(b"IEND")

    with pytest.raises(PictureRefused, match="DecompressionBomb"):
        render(content, Facts("PNG", 9_000, 9_000), 10, 10)


def test_a_format_that_is_not_the_one_found_is_not_opened() -> None:
    content = encode(gradient(), "BMP")

    with pytest.raises(PictureRefused, match="Unidentified"):
        render(content, Facts("PNG", 320, 200), 10, 10)


def test_a_size_that_is_not_the_one_found_is_refused() -> None:
    content = encode(gradient(), "PNG")

    with pytest.raises(PictureRefused, match="two different sizes"):
        render(content, Facts("PNG", 10, 10), 10, 10)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "GIF"])
def test_damaged_pictures_are_refused_or_rendered_and_never_crash(format_name: str) -> None:
    dice = random.Random(54)
    honest = encode(gradient(96, 64), format_name)
    refused = 0
    for _ in range(400):
        damaged = bytearray(honest)
        for _ in range(dice.choice((1, 1, 2, 20))):
            # Most damage where the structure is.
            place = dice.randrange(min(len(honest), dice.choice((64, 700, len(honest)))))
            damaged[place] = dice.randrange(256)
        content = bytes(damaged)
        try:
            render(content, read_facts(content), 40, 40)
        except PictureRefused:
            refused += 1

    assert refused > 50


def test_a_picture_writes_no_warnings_into_the_log(recwarn: pytest.WarningsRecorder) -> None:
    tags = b"".join(struct.pack(">HHII", 0x9000 + number, 2, 1_000_000, 10) for number in range(100))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 100) + tags + bytes(4)
    png = encode(gradient(), "PNG")
    content = png[:33] + chunk(b"eXIf", exif) + png[33:]

    thumbnail(content)

    assert [str(found.message) for found in recwarn] == []
