"""Every spelling of an inner address is refused, and what is public is not."""

import re
import socket
import threading
import time
from pathlib import Path

import pytest

from apps.outbound.addresses import check_url, look_up, read_url
from apps.outbound.errors import DeadlineExceeded, ForbiddenAddress, Unreachable

PUBLIC = "93.184.216.34"

REFUSED_HOSTS = [
    # Plain spellings, one of each network.
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
    *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250"),
    *("240.0.0.1", "255.255.255.255", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[64:ff9b:1::1]", "[100::1]"),
    *("[2001:2::1]", "[2001:10::1]", "[2001:db8::1]", "[3ffe::1]", "[3fff::1]", "[4000::1]", "[5f00::1]"),
    *("[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]", "[ff02::1]"),
    # IPv6 that carries IPv4.
    *("[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::ffff:10.0.0.1]", "[::ffff:0:127.0.0.1]", "[::127.0.0.1]"),
    *("[::7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]"),
    *("[2001:0:7f00:1::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]"),
    # Odd spellings of numbers.
    *("2130706433", "017700000001", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1", "0177.1", "127.1", "127.0.1"),
    *("0", "0x0", "127.0.0.01", "127.0.0.1.", "127.0.0.1..", "127.0.0.0x1", "256.256.256.256", "1.2.3.4.5"),
    "4294967297",
    # Unicode that becomes digits, dots or letters.
    *("①②⑦.0.0.1", "127。0。0。1", "127．0．0．1", "１２７.0.0.1", "１６９.２５４.169.254", "\u200d127.0.0.1"),
    "①②⑦．①",
    # Zones, brackets, percent signs, empty and broken names.
    *("[fe80::1%25eth0]", "[::1%25lo]", "[127.0.0.1]", "[]", "[::1", "%31%32%37.0.0.1", "127.0.0.1%00.example.com"),
    *("", ".", "..", "a..b", "-a.example", "exa mple.com", "a" * 64 + ".example", "a." * 127 + "aa"),
]

REFUSED_URLS = [
    *("http://user@example.com/", "http://user:password@example.com/", "http://example.com@127.0.0.1/"),
    *("http://127.0.0.1@example.com/", "http://@example.com/", "http://example.com:6379/", "http://example.com:22/"),
    *("http://example.com:0/", "http://example.com:99999/", "http://example.com:８０/", "http://example.com:-80/"),
    *("http://example.com\\@127.0.0.1/", "http:\\\\127.0.0.1/", "http://exa\tmple.com/"),
    *("http://example.com/\r\nX-Injected: yes", "http://example.com/a b", " http://example.com/"),
    *("http://example.com/\x00", "http://example.com\x85/", "//example.com/", "example.com", "http:example.com"),
    *("http:///path", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com:80/", "data:text/plain,hello"),
    *("javascript:alert(1)", "jar:http://example.com!/", "", "http://", "https://" + "a" * 2048),
]


@pytest.fixture
def resolved(monkeypatch):
    """Set what each name resolves to; without an answer a look-up fails the test."""

    def answer(*addresses: str) -> None:
        monkeypatch.setattr("apps.outbound.addresses.look_up", lambda *asked: addresses or pytest.fail("was asked"))

    return answer


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_a_host_that_is_no_public_address_is_refused_before_any_look_up(host, resolved):
    resolved()

    with pytest.raises(ForbiddenAddress):
        check_url(f"http://{host}/")


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_two_parsers_could_read_differently_is_refused(url, resolved):
    resolved(PUBLIC)

    with pytest.raises(ForbiddenAddress):
        check_url(url)


@pytest.mark.parametrize(
    "answer", [host.strip("[]") for host in REFUSED_HOSTS[:52]] + ["fe80::1%eth0", "::ffff:127.0.0.1"]
)
def test_a_name_that_resolves_to_an_inner_address_is_refused_even_among_public_answers(answer, resolved):
    resolved(PUBLIC, answer, "2606:4700::1")

    with pytest.raises(ForbiddenAddress, match="not a public address"):
        check_url("https://example.com/")


def test_localhost_as_the_system_resolves_it_is_refused():
    with pytest.raises(ForbiddenAddress, match="loopback"):
        check_url("http://localhost/")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        *(("8.8.8.8", "8.8.8.8"), ("8.8.8.8.", "8.8.8.8"), ("[2606:4700:4700::1111]", "2606:4700:4700::1111")),
        *(("[::ffff:8.8.8.8]", "::ffff:808:808"), ("[64:ff9b::8.8.8.8]", "64:ff9b::808:808")),
        *(("172.32.0.1", "172.32.0.1"), ("100.128.0.1", "100.128.0.1"), ("192.0.1.1", "192.0.1.1")),
    ],
)
def test_a_public_address_is_taken_as_it_is(host, address, resolved):
    resolved()

    _, addresses = check_url(f"https://{host}/")

    assert addresses == (address,)


@pytest.mark.parametrize(
    ("url", "host", "header"),
    [
        ("http://Example.COM/", "example.com", "example.com"),
        ("http://example.com./", "example.com", "example.com"),
        ("http://example.com:80/", "example.com", "example.com"),
        ("http://example.com:8443/", "example.com", "example.com:8443"),
        ("https://example.com:443/", "example.com", "example.com"),
        ("https://bücher.example/", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("https://[2606:4700::1]:8443/", "2606:4700::1", "[2606:4700::1]:8443"),
        ("https://_dmarc.exa-mple.com/", "_dmarc.exa-mple.com", "_dmarc.exa-mple.com"),
    ],
)
def test_a_host_is_read_into_one_form(url, host, header):
    place = read_url(url)

    assert (place.host, place.host_header) == (host, header)


def test_path_and_query_are_sent_encoded_and_the_fragment_is_not():
    place = read_url("https://example.com/grüße/%20?a=1&b=ü{}#secret")

    assert place.target == "/gr%C3%BC%C3%9Fe/%20?a=1&b=%C3%BC%7B%7D"


def test_an_inner_address_is_allowed_for_exactly_the_host_and_port_that_are_set(settings, resolved):
    settings.ALLOWED_PRIVATE_ADDRESSES = frozenset({("127.0.0.1", 9000), ("receiver.internal", 9001)})

    assert check_url("http://127.0.0.1:9000/")[1] == ("127.0.0.1",)
    resolved("10.0.0.7")
    assert check_url("http://receiver.internal:9001/")[1] == ("10.0.0.7",)
    resolved("127.0.0.1")
    for url in (
        *("http://127.0.0.1:9001/", "http://127.0.0.1/", "http://127.0.0.2:9000/", "http://0x7f.1:9000/"),
        *("http://[::ffff:127.0.0.1]:9000/", "http://example.com:9000/"),
    ):
        with pytest.raises(ForbiddenAddress):
            check_url(url)


def test_a_resolver_that_never_answers_is_left_behind_at_the_deadline(monkeypatch):
    over = threading.Event()

    def stall(*args: object, **kwargs: object) -> list[object]:
        over.wait(60)
        return []

    monkeypatch.setattr("socket.getaddrinfo", stall)
    started = time.monotonic()

    with pytest.raises(DeadlineExceeded, match="name was looked up"):
        look_up("slow.example", 443, 0.05)

    assert time.monotonic() - started < 20, "the resolver returns after 60 s"
    over.set()


def test_a_name_that_does_not_resolve_is_unreachable_not_forbidden(monkeypatch):
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr("socket.getaddrinfo", unknown)

    with pytest.raises(Unreachable):
        check_url("https://no-such-name.invalid/")


def test_a_refusal_names_host_and_remedy_but_never_path_query_or_user():
    refusals = []
    for url in ("http://10.0.0.1/canary?key=canary", "http://canary:canary@example.com/", "ftp://example.com/canary"):
        with pytest.raises(ForbiddenAddress) as caught:
            check_url(url)
        refusals.append(str(caught.value))

    assert "10.0.0.1: is not a public address (private)" in refusals[0]
    assert all("; give" in refusal and "canary" not in refusal for refusal in refusals)


def test_no_code_asks_python_whether_an_address_is_global_or_private():
    root = Path(__file__).parents[3]
    paths = [
        path for folder in ("switchyard", "middleware", "apps", "project") for path in (root / folder).rglob("*.py")
    ]

    assert [path for path in paths if re.search(r"\.is_(global|private)", path.read_text())] == []
