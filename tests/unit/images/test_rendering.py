"""Thumbnails are upright and without metadata; what is no honest picture is refused quickly, in little memory."""

import io
import random
import struct
import time
import zlib

import psutil
import pytest
from PIL import Image, PngImagePlugin

from apps.images.containers import Facts, read_facts
from apps.images.errors import PictureRefused
from apps.images.making import check_content_type, check_name
from apps.images.rendering import Rendered, render
from switchyard.middleware.errors import PermanentFailure
from tests.factories.pictures import chunk, encode, gradient, png_bomb, png_header, webp, webp_canvas

SECRET = b"canary"
PNG, JPEG = encode(gradient(), "PNG"), encode(gradient(), "JPEG")
WEBP, GIF = encode(gradient(), "WEBP"), encode(gradient(), "GIF")
GIF_HEAD = 13 + 3 * 2 ** ((GIF[10] & 7) + 1)
HONEST = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "GIF": GIF}


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
def test_it_fits_its_box_keeps_its_proportions_and_is_never_enlarged(format_name, box, size):
    rendered, picture = thumbnail(encode(gradient(), format_name), *box)

    assert picture.size == (rendered.width, rendered.height)
    assert abs(picture.width - size[0]) <= 1 and abs(picture.height - size[1]) <= 1
    assert (rendered.content_type, rendered.suffix) == ("image/webp", "webp")


@pytest.mark.parametrize("format_name", ["PNG", "WEBP"])
def test_what_shows_through_stays_so_in_a_png(format_name):
    source = gradient(mode="RGBA")
    source.putalpha(Image.linear_gradient("L").resize(source.size))

    rendered, picture = thumbnail(encode(source, format_name, lossless=True))

    assert (rendered.content_type, picture.format or "PNG", picture.mode) == ("image/png", "PNG", "RGBA")
    low, high = picture.getchannel("A").getextrema()
    assert low < 10 and high > 245


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_it_is_upright_whatever_way_the_camera_was_held(orientation, format_name):
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
def test_no_metadata_survives(format_name, mode):
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


def test_of_an_animation_the_first_frame_is_shown():
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
def test_what_cannot_be_decoded_is_refused_quickly(what, most_s):
    content = BROKEN[what]
    started = time.process_time()

    with pytest.raises(PictureRefused):
        render(content, read_facts(content), 10, 10)

    assert time.process_time() - started < most_s


@pytest.mark.parametrize(
    ("content", "width", "height", "why"),
    [
        (png_header(9_000, 9_000) + chunk(b"IDAT") + chunk(b"IEND"), 9_000, 9_000, "DecompressionBomb"),
        (encode(gradient(), "BMP"), 320, 200, "Unidentified"),
        (encode(gradient(), "PNG"), 10, 10, "two different sizes"),
    ],
    ids=["a bomb", "another format", "another size"],
)
def test_what_the_first_look_did_not_find_is_refused(content, width, height, why):
    with pytest.raises(PictureRefused, match=why):
        render(content, Facts("PNG", width, height), 10, 10)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "GIF"])
def test_damaged_pictures_are_refused_or_rendered_and_never_crash(format_name):
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


def test_a_picture_writes_no_warnings_into_the_log(recwarn):
    tags = b"".join(struct.pack(">HHII", 0x9000 + number, 2, 1_000_000, 10) for number in range(100))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 100) + tags + bytes(4)
    png = encode(gradient(), "PNG")
    content = png[:33] + chunk(b"eXIf", exif) + png[33:]

    thumbnail(content)

    assert [str(found.message) for found in recwarn] == []


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_of_size(width: int, height: int) -> bytes:
    start = JPEG.index(b"\xff\xc0")
    return JPEG[: start + 5] + struct.pack(">HH", height, width) + JPEG[start + 9 :]


@pytest.mark.parametrize(
    ("content", "format_name"),
    [
        *((content, name) for name, content in HONEST.items()),
        (encode(gradient(), "JPEG", progressive=True, quality=95), "JPEG"),
        (encode(gradient(), "JPEG", restart_marker_blocks=1), "JPEG"),
        (encode(gradient(), "JPEG", exif=Image.Exif(), comment=b"hello"), "JPEG"),
        (encode(gradient(mode="CMYK"), "JPEG"), "JPEG"),
        (encode(gradient(), "WEBP", lossless=True), "WEBP"),
        (encode(gradient(mode="RGBA"), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "WEBP"),
        (encode(gradient(), "WEBP", save_all=True, append_images=[gradient(), gradient(mode="L")]), "WEBP"),
        (encode(gradient(), "GIF", save_all=True, append_images=[gradient(mode="L")]), "GIF"),
        (encode(gradient(), "PNG", save_all=True, append_images=[gradient(mode="L").convert("RGB")]), "PNG"),
        (encode(gradient(mode="P"), "PNG"), "PNG"),
        (encode(gradient(mode="L").convert("I;16"), "PNG"), "PNG"),
        (PNG + bytes(64), "PNG"),
        (JPEG + bytes(64) + JPEG, "JPEG"),
        (encode(gradient(), "MPO", save_all=True, append_images=[gradient()]), "JPEG"),
    ],
)
def test_what_cameras_and_programs_write_is_taken(content, format_name):
    facts = read_facts(content)

    assert (facts.format, facts.width, facts.height) == (format_name, 320, 200)


HOSTILE = {
    "nothing": b"",
    "text": b"hello",
    "html": b"<html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "bmp": encode(gradient(), "BMP"),
    "tiff": encode(gradient(), "TIFF"),
    "avif": b"\0\0\0\x20ftypavif" + bytes(100),
    "fits": b"SIMPLE  =                    T" + b" " * 5000,
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "png bomb": png_bomb(),
    "wide png": png_header(2**31 - 1, 1) + chunk(b"IEND"),
    "png of no pixels": png_header(0, 10) + chunk(b"IEND"),
    "png of negative length": png_header(1, 1) + b"\xff\xff\xff\xffIDAT",
    "png cut in half": PNG[: len(PNG) // 2],
    "png without header": PNG[:8] + PNG[33:],
    "png of endless chunks": png_header(1, 1) + chunk(b"tEXt") * 300_000,
    "jpeg bomb": jpeg_of_size(65_000, 65_000),
    "jpeg of no pixels": jpeg_of_size(0, 100),
    "jpeg of two sizes": JPEG[:2] + jpeg_segment(0xC0, b"\x08\0\x01\0\x01\x01\x01\x11\0") + JPEG[2:],
    "jpeg cut in its picture": JPEG[:-20],
    "jpeg cut in its header": JPEG[:30],
    "jpeg of markers alone": b"\xff\xd8" + b"\xff" * 100_000,
    "jpeg of many scans": JPEG[:-2] + (jpeg_segment(0xDA, b"\x01\x01\0\0\x3f\0") + b"\0") * 200 + b"\xff\xd9",
    "jpeg of endless segments": b"\xff\xd8" + jpeg_segment(0xFE, b"") * 300_000,
    "webp bomb": webp(b"VP8X", webp_canvas(16_384, 16_384), b"VP8L\x05\0\0\0\x2f\0\0\0\0\0"),
    "lossless webp bomb": webp(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFF_FFFF) + b"\0"),
    "webp of endless chunks": webp(b"VP8X", webp_canvas(4, 4), b"XXXX\0\0\0\0" * 300_000),
    "webp cut off": WEBP[:-10],
    "webp that is cut to its header": WEBP[:16],
    "webp without header": webp(b"JUNK", b"junk"),
    "sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    "gif bomb": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + GIF[10:],
    "gif of endless parts": GIF[:GIF_HEAD] + b"!\xfe" + b"\x01a" * 300_000 + b"\0" + GIF[GIF_HEAD:],
    "gif of an endless comment": GIF[:GIF_HEAD] + b"!\xfe" + (b"\xff" + b"a" * 255) * 80_000 + b"\0" + GIF[GIF_HEAD:],
    "gif without a frame": b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b";",
    **{f"{name} behind a byte": b"\0" + content for name, content in HONEST.items()},
}


@pytest.mark.parametrize("most_s", [1.0, pytest.param(0.2, marks=pytest.mark.long)])
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_plain_picture_is_refused_quickly_in_little_memory(what, most_s):
    content = HOSTILE[what]
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    started = time.process_time()

    with pytest.raises(PictureRefused) as refused:
        render(content, read_facts(content), 40, 40)

    assert time.process_time() - started < most_s
    assert process.memory_info().rss - before_bytes < 50 * 1024 * 1024
    assert isinstance(refused.value, PermanentFailure)
    assert str(refused.value).startswith("picture: ") and "; " in str(refused.value)


@pytest.mark.parametrize("format_name", HONEST)
def test_a_picture_cut_off_anywhere_never_crashes(format_name):
    content = HONEST[format_name]
    refused = 0

    for length in range(0, len(content) - 20, max(1, len(content) // 300)):
        try:
            render(content[:length], read_facts(content[:length]), 40, 40)
        except PictureRefused:
            refused += 1

    assert refused > 290


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "IMAGE/PNG", "image/png; charset=binary"])
def test_a_content_type_that_is_true_or_says_nothing_is_taken(content_type):
    check_content_type(content_type, "PNG")


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "text/html", "image/svg+xml", "application/zip", "png", "x" * 99]
)
def test_a_content_type_that_lies_is_refused(content_type):
    with pytest.raises(PictureRefused, match="came as"):
        check_content_type(content_type, "PNG")


@pytest.mark.parametrize(
    ("name", "is_url"),
    [
        *(("a.png", False), ("A.PNG", False), ("a", False), ("", False), ("/img.php", True), ("/a/b.png", True)),
        ("/", True),
    ],
)
def test_a_name_that_is_true_or_says_nothing_is_taken(name, is_url):
    check_name(name, "PNG", is_url=is_url)


@pytest.mark.parametrize(
    ("name", "is_url"),
    [("a.jpg", False), ("a.png.html", False), ("a.svg", False), ("a.exe", False), ("/a.gif", True), ("/a.JPEG", True)],
)
def test_a_name_that_lies_is_refused(name, is_url):
    with pytest.raises(PictureRefused, match="is named"):
        check_name(name, "PNG", is_url=is_url)


def test_a_jpeg_of_several_scans_and_no_component_is_refused():
    progressive = encode(gradient(), "JPEG", progressive=True)
    start = progressive.index(b"\xff\xc2")
    without = progressive[: start + 9] + b"\0" + progressive[start + 10 :]

    with pytest.raises(PictureRefused, match="cannot be read"):
        read_facts(without)
