"""Control characters of a page are escaped; the kept verdict is read once and never shown when it is old."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from switchyard.frame.control_characters import control_characters, shown
from switchyard.frame.views import OLD_S, PAGE_S, VerdictStrip
from switchyard.operations.overview import Verdict
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("red \x1b[31m", r"red \x1b[31m"),
        ("\x00\x07\x7f", r"\x00\x07\x7f"),
        ("C1 \x9b2J", r"C1 \x9b2J"),
        ("<b title='\x1b'>", r"<b title='\x1b'>"),
    ],
)
def test_a_control_character_is_an_escape(text, escaped):
    assert shown(text.encode()).decode() == escaped


@pytest.mark.parametrize("text", ["tab\tline\r\n", "Grüße aus Tromsø, £5 \u00a0 ÂÃ", "עברית \u202b", ""])
def test_other_text_stays_as_it_is(text):
    assert (shown(text.encode()), shown(text.encode() + b"\x1b")) == (text.encode(), text.encode() + rb"\x1b")


@pytest.mark.parametrize("field", ['<input name="a" value="{}">', '<textarea\nname="a">\n{}</textarea>'])
def test_a_form_sends_back_what_it_was_given(field):
    page = "\x1b" + field.format("a\x1b\x9b\x7f") + "\x1b"

    assert shown(page.encode()).decode() == r"\x1b" + field.format("a\x1b\x9b\x7f") + r"\x1b"
    assert shown(field.format("a\x00").encode()).decode() == field.format("a\ufffd")


def answered(response: HttpResponseBase) -> HttpResponseBase:
    found: HttpResponseBase = control_characters(lambda _: response)(HttpRequest())
    return found


def test_a_page_has_the_length_that_its_header_says():
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
def test_what_is_no_page_stays_as_it_is(response):
    before = response.content

    answer = answered(response)

    assert isinstance(answer, HttpResponse) and answer.content == before


def test_streams_are_not_read():
    stream = StreamingHttpResponse([b"\x1b"], content_type="text/html")

    assert answered(stream) is stream
    assert isinstance(answered(FileResponse(b"", content_type="text/html")), FileResponse)


def test_pages_of_async_views_are_escaped():
    async def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse("\x1b")

    assert async_to_sync(control_characters(view))(HttpRequest()).content == rb"\x1b"


@dataclass
class Yard:
    """Counts how often it is read; a read can be held up."""

    reads: int = 0
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.may_end = threading.Event()
        self.may_end.set()

    def overview(self) -> SimpleNamespace:
        self.reads += 1
        verdict = Verdict("ok", "Healthy", f"Read {self.reads}.")
        assert self.may_end.wait(30)
        return SimpleNamespace(verdict=verdict, at=datetime.now(UTC), away=False, quarantined=0)


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    found = Yard()
    monkeypatch.setattr("switchyard.operations.overview.overview", found.overview)
    return found


def test_it_is_read_again_when_it_is_older_than_asked(yard):
    kept = VerdictStrip(lambda: yard.now_s)

    assert kept.verdict(PAGE_S) is kept.verdict(PAGE_S)
    yard.now_s += PAGE_S

    assert (kept.verdict(PAGE_S).verdict.sentence, kept.verdict(0.0).verdict.sentence) == ("Read 2.", "Read 3.")


@pytest.mark.parametrize(("age_s", "waits"), [(OLD_S - 1, False), (OLD_S + 1, True)])
def test_while_it_is_read_the_one_before_is_shown_unless_it_is_old(yard, age_s, waits):
    kept = VerdictStrip(lambda: yard.now_s)
    kept.verdict()
    yard.now_s += age_s
    yard.may_end.clear()
    seen: list[str] = []
    readers = [
        threading.Thread(target=lambda: seen.append(kept.verdict().verdict.sentence), daemon=True) for _ in range(2)
    ]

    readers[0].start()
    wait_for(lambda: yard.reads == 2)
    readers[1].start()
    if not waits:
        wait_for(lambda: seen == ["Read 1."])
    yard.may_end.set()
    for reader in readers:
        reader.join(30)

    assert (seen, yard.reads) == (["Read 2.", "Read 2."] if waits else ["Read 1.", "Read 2."], 2)
