from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from switchyard.frame.control_characters import control_characters, shown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("red \x1b[31m", r"red \x1b[31m"),
        ("\x00\x07\x7f", r"\x00\x07\x7f"),
        ("C1 \x9b2J", r"C1 \x9b2J"),
        ("<b title='\x1b'>", r"<b title='\x1b'>"),
    ],
)
def test_a_control_character_is_an_escape(text: str, escaped: str) -> None:
    assert shown(text.encode()).decode() == escaped


@pytest.mark.parametrize("text", ["tab\tline\r\n", "Grüße aus Tromsø, £5 \u00a0 ÂÃ", "עברית \u202b", ""])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert shown(text.encode()) == text.encode()
    assert shown(text.encode() + b"\x1b") == text.encode() + rb"\x1b"


@pytest.mark.parametrize("field", ['<input name="a" value="{}">', '<textarea\nname="a">\n{}</textarea>'])
def test_a_form_sends_back_what_it_was_given(field: str) -> None:
    page = "\x1b" + field.format("a\x1b\x9b\x7f") + "\x1b"

    assert shown(page.encode()).decode() == r"\x1b" + field.format("a\x1b\x9b\x7f") + r"\x1b"
    assert shown(field.format("a\x00").encode()).decode() == field.format("a\ufffd")


def answered(response: HttpResponseBase) -> HttpResponseBase:
    found: HttpResponseBase = control_characters(lambda _: response)(HttpRequest())
    return found


def test_a_page_has_the_length_that_its_header_says() -> None:
    answer = answered(HttpResponse("\x1b", headers={"Content-Length": "1"}))

    assert isinstance(answer, HttpResponse)
    assert (answer.content, answer["Content-Length"]) == (rb"\x1b", "4")


@pytest.mark.parametrize(
    "response",
    [
        HttpResponse(b"\x1b", content_type="application/octet-stream"),
        HttpResponse(b"\x1b", headers={"Content-Encoding": "gzip"}),
        HttpResponse(b"\xc2\x9b", content_type="text/html; charset=iso-8859-1"),
    ],
)
def test_what_is_no_page_stays_as_it_is(response: HttpResponse) -> None:
    before = response.content

    answer = answered(response)

    assert isinstance(answer, HttpResponse) and answer.content == before


def test_streams_are_not_read() -> None:
    stream = StreamingHttpResponse([b"\x1b"], content_type="text/html")

    assert answered(stream) is stream
    assert isinstance(answered(FileResponse(b"", content_type="text/html")), FileResponse)


def test_pages_of_async_views_are_escaped() -> None:
    async def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse("\x1b")

    answer = async_to_sync(control_characters(view))(HttpRequest())

    assert answer.content == rb"\x1b"
