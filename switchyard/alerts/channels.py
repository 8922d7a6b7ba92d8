"""Channels that alerts are sent to, and the entries of SWITCHYARD_ALERT_URLS that name them.

A channel's name is unique and holds no secret. ``send`` sends one message within ``DEADLINE_S``, or raises
``ChannelFailed``. PagerDuty, Opsgenie and Jira have classes of their own, since apprise resolves nothing there.
"""

import hashlib
import json
import logging
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from smtplib import SMTPException
from typing import Any, Protocol
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import urllib3
from django.core import mail
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email

from switchyard.alerts.notice import Notice
from switchyard.broker.errors import SwitchyardError
from switchyard.broker.redis.addresses import is_loopback
from switchyard.conf import switchyard_settings
from switchyard.loggers import get_logger
from switchyard.setting_values import InvalidSetting, refuse_without


class ChannelFailed(SwitchyardError):
    """A channel did not accept a message; with ``answered`` it refused only this one. There are 5 attempts in all."""

    def __init__(self, channel: str, fact: str, *, answered: bool = False) -> None:
        self.fact = fact
        self.answered = answered
        super().__init__(f"alert channel {channel}: {fact}; retried up to 5 times; check SWITCHYARD_ALERT_URLS")


DEADLINE_S = 5.0
LONGEST_SUBJECT = 200
# Modules, requirement and extra of the wheel, as pyproject.toml has them.
APPRISE = ("apprise", "apprise>=2.2,<3", "alerts")
SETTING = "SWITCHYARD_ALERT_URLS"
LABELLED = re.compile(r"(?P<label>[a-z][a-z0-9_-]{0,31})=(?P<url>[a-z][a-z0-9+.-]*:.*)")
KEY = re.compile(r"[A-Za-z0-9_-]{8,64}")
CREDENTIAL = re.compile(r"(?P<mail>[^\s:]+:)?[!-9;-~]{8,}")
PLACE = re.compile(r"(?P<context>(?:/[\w.~-]+)*)/(?P<project>[A-Z][A-Z0-9_]{1,79})", re.ASCII)
# Telegram reads tags in a text, Discord calls everybody that it names: an error quotes what strangers wrote. Characters
# that look alike do nothing, and keep the length.
LIVE = re.compile(r"[<>]|(?<![\w.+-])@|@(?=\d|everyone|here|channel|all)|\](?=\()", re.IGNORECASE)
LOOKALIKES = {"<": "\u2039", ">": "\u203a", "@": "\uff20", "]": "\uff3d"}

log = get_logger("switchyard.alerts")


class Channel(Protocol):
    """Interface of a channel for alert messages."""

    @property
    def name(self) -> str: ...

    def send(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class LogChannel:
    """Channel that writes each message as one log line. It never fails."""

    name: str = "log"

    def send(self, notice: Notice) -> None:
        alert = notice.alert
        log.error(
            "alert",
            title=alert.title, kind=alert.kind, severity=alert.severity, state=alert.state, queue=alert.queue,
            actor=alert.actor, count=notice.count, new=notice.count - notice.reported, fingerprint=alert.fingerprint,
            link=alert.link,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmailChannel:
    """Channel that mails each message to fixed addresses, through the project's mail server."""

    recipients: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"email {', '.join(self.recipients)}"[:200]

    def send(self, notice: Notice) -> None:
        subject = " ".join(notice.headline.split())[:LONGEST_SUBJECT]
        # A repeated attempt carries the same Message-ID, so that mailboxes show it once.
        headers = {"Message-ID": f"<alert-{notice.id}@switchyard>", "Auto-Submitted": "auto-generated"}
        message = EmailMessage(subject, notice.text, to=list(self.recipients), headers=headers)
        # Django 6.1 has mailers, and deprecates the other.
        connection: Any = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
        connection.timeout = DEADLINE_S
        try:
            connection.send_messages([message])
        except (OSError, SMTPException) as error:
            raise ChannelFailed(self.name, f"{type(error).__name__} from the mail server") from error


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """Channel that posts each message as JSON to a URL; only a 2xx answer counts as accepted.

    The URL is a secret, its path or query often is the only credential: the name has its host and a digest.
    """

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        return f"webhook {urlsplit(self.url).hostname} #{digest(self.url)}"[:200]

    def send(self, notice: Notice) -> None:
        ask(self.name, self.url, notice.as_json(), {"Idempotency-Key": notice.id})


@dataclass(frozen=True, slots=True)
class IncidentChannel:
    """Base of channels whose incidents stay open until a message closes them."""

    key: str = field(repr=False)
    origin: str

    @property
    def name(self) -> str:
        return f"{type(self).__name__.removesuffix('Channel').lower()} #{digest(self.key)}"


class PagerDutyChannel(IncidentChannel):
    """Channel that triggers an incident of PagerDuty for each cause (Events API v2), and resolves it."""

    def send(self, notice: Notice) -> None:
        event: dict[str, Any] = {"routing_key": self.key, "dedup_key": notice.cause, "event_action": "resolve"}
        alert = notice.alert
        if not alert.resolved_at:
            event |= {
                "event_action": "trigger",
                "client": "Switchyard",
                "client_url": alert.link,
                "links": [{"href": alert.link, "text": "Show it"}] if alert.link else [],
                "payload": {
                    "summary": notice.headline[:1_024],
                    "source": notice.yard,
                    "severity": alert.severity,
                    "component": alert.queue or None,
                    "class": alert.kind,
                    "timestamp": alert.first_at.isoformat(),
                    "custom_details": {"text": notice.text, "count": notice.count},
                },
            }
        ask(self.name, f"{self.origin}/v2/enqueue", event, {})


class OpsgenieChannel(IncidentChannel):
    """Channel that creates an alert of Opsgenie for each cause, and closes it."""

    def send(self, notice: Notice) -> None:
        alert, address = notice.alert, f"{self.origin}/v2/alerts"
        body: dict[str, Any] = {"source": notice.yard}
        if alert.resolved_at:
            address += f"/{quote(notice.cause, safe='')}/close?identifierType=alias"
        else:
            body |= {
                "message": notice.headline[:130],
                "alias": notice.cause,
                "description": notice.text[:15_000],
                "priority": "P1" if alert.severity == "critical" else "P3",
                "entity": alert.queue,
            }
        ask(self.name, address, body, {"Authorization": f"GenieKey {self.key}"})


class _Answers(logging.Handler):
    """Status that apprise logs in the thread that made this; its lines hold addresses, and are not passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.status, self._thread = "", threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"error=(\d{3})\b", record.getMessage())
        if found and record.thread == self._thread:
            self.status = found[1]


@dataclass(frozen=True, slots=True)
class AppriseChannel:
    """Channel of one of apprise's services: Slack, Teams, Discord, gateways of SMS and many more."""

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        return f"{urlsplit(self.url).scheme} #{digest(self.url)}"

    def service(self) -> Any:
        """Return apprise's own object; ``None`` where it cannot use the address.

        Loads all of apprise, which takes 40 MB and a second.
        """
        from apprise import Apprise, AppriseAsset
        from apprise.logger import logger

        logger.propagate = False
        logger.setLevel(logging.WARNING)  # below it whole messages and addresses are put together
        asset = AppriseAsset(app_id="Switchyard", app_desc="", app_url="", image_url_mask="", async_mode=False)
        return Apprise.instantiate(self.url, asset=asset, suppress_exceptions=True)

    def send(self, notice: Notice) -> None:
        if (service := self.service()) is None:
            raise ChannelFailed(self.name, "apprise cannot use its address")
        within_deadline(self.name, partial(self._send, service, notice))

    def _send(self, service: Any, notice: Notice) -> None:
        from apprise import NotifyType
        from apprise.logger import logger

        service.socket_connect_timeout = service.socket_read_timeout = DEADLINE_S
        alert, answers = notice.alert, _Answers()
        told = NotifyType.FAILURE if alert.severity == "critical" else NotifyType.WARNING
        told = NotifyType.SUCCESS if alert.resolved_at else told
        logger.addHandler(answers)
        try:  # by the service itself: what is sent through Apprise waits for its other threads at the end of a process
            title, text = inert(notice.headline), inert(notice.within(service.body_maxlen))
            sent = service.notify(body=text, title=title, notify_type=told, body_format="text")
        finally:
            logger.removeHandler(answers)
        if not sent:
            fact = f"answered {answers.status}" if answers.status else "apprise could not send it"
            raise ChannelFailed(self.name, fact, answered=bool(answers.status))


def inert(text: str) -> str:
    """Return a text that calls nobody and links nothing but plain addresses, of the same length."""
    return LIVE.sub(lambda found: LOOKALIKES[found[0]], text)


def digest(text: str, length: int = 8) -> str:
    """Return hexadecimal digits that stand for a text, of a secret without telling it."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def within_deadline(name: str, work: Callable[[], None]) -> None:
    """Run the work of the channel of a name, which may take several requests, in a thread for at most ``DEADLINE_S``.

    Raises:
        ChannelFailed: the work raised it, or another error, whose words may hold an address; or it goes on.
    """
    failures: list[ChannelFailed] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  see above
            failed = ChannelFailed(name, f"{type(error).__name__} in the channel")
            failures.append(error if isinstance(error, ChannelFailed) else failed)

    thread = threading.Thread(target=run, name=f"alert {name}", daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    if thread.is_alive():
        raise ChannelFailed(name, f"no answer in {DEADLINE_S:g} s")
    if failures:
        raise failures[0]


def ask(name: str, url: str, body: object, headers: Mapping[str, str], *, at: str = "", most_bytes: int = 0) -> bytes:
    """Post JSON for the channel of a name, or get the URL where there is no body; return the answer's first bytes.

    Args:
        at: Words that tell a refused request from others, without a secret.
        most_bytes: Bytes of the answer that are read: it could last for ever.

    Raises:
        ChannelFailed: any but a 2xx answer within the deadline.
    """
    method, content = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    headers = {"Content-Type": "application/json", **headers}
    try:
        with (
            urllib3.PoolManager(1, retries=False, timeout=urllib3.Timeout(total=DEADLINE_S)) as pool,
            pool.request(method, url, body=content, headers=headers, preload_content=False) as answer,
        ):
            words = answer.read(most_bytes, decode_content=False) if most_bytes else b""
    except urllib3.exceptions.HTTPError as error:
        # The error's own message contains the URL.
        raise ChannelFailed(name, type(error).__name__) from None
    if not 200 <= answer.status < 300:
        raise ChannelFailed(name, f"answered {answer.status}{at}", answered=True)
    return words


def channels(urls: Sequence[str] | None = None) -> dict[str, Channel]:
    """Return one channel for each distinct URL, by its label or name; without any URL the log channel.

    Args:
        urls: By default those of the setting.

    Raises:
        InvalidSetting: no channel can use an entry. The message names its position, never the URL.
    """
    found: dict[str, Channel] = {}
    for position, url in enumerate(switchyard_settings().alert_urls if urls is None else urls, start=1):
        name, channel = parse(url, position)
        if found.setdefault(name, channel) != channel:
            raise _unusable(position, f"has the label {name} of another entry")
    return found or {"log": LogChannel()}


def parse(url: str, position: int) -> tuple[str, Channel]:
    """Return label or name, and channel of the URL at a position in the list, from 1; errors as for ``channels``.

    Whether apprise can use an address of its own is not checked, as apprise is not loaded, see :func:`refuse_unusable`.
    """
    labelled = LABELLED.fullmatch(url)
    channel = _channel_of(labelled["url"] if labelled else url, position)
    return labelled["label"] if labelled else channel.name, channel


def _channel_of(url: str, position: int) -> Channel:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _unusable(position, "is not a URL") from error
    match parts.scheme:
        case "log":
            return LogChannel()
        case "mailto":
            return EmailChannel(_recipients(parts.path, position))
        case "http" | "https":
            if not parts.hostname or _port(url) == 0:
                raise _unusable(position, "names no host")
            return WebhookChannel(url)
        case "pagerduty":
            return PagerDutyChannel(*_key_and_origin(url, position, "events.pagerduty.com"))
        case "opsgenie":
            return OpsgenieChannel(*_key_and_origin(url, position, "api.opsgenie.com"))
        case "jira" if re.search(r"[^/]@|//[^/]*\.", url):  # others are apprise's, of Jira Service Management
            from switchyard.alerts.jira import JiraChannel

            return JiraChannel(*_jira(url, position))
    if not parts.scheme or not parts.netloc:
        raise _unusable(position, f"has the scheme {parts.scheme!r}")
    refuse_without(SETTING, APPRISE, f"entry {position}, {parts.scheme}")
    return AppriseChannel(url)


def refuse_unusable(urls: Sequence[str]) -> None:
    """Refuse an entry that apprise cannot use, which is loaded for it; raise as :func:`channels`."""
    for position, url in enumerate(urls, start=1):
        _, channel = parse(url, position)
        if isinstance(channel, AppriseChannel) and channel.service() is None:
            raise _unusable(position, f"is not an address that apprise can use for {urlsplit(channel.url).scheme}")


def _unusable(position: int, fact: str) -> InvalidSetting:
    remedy = (
        "use log:, mailto:ops@example.com, https://hooks.example.com/…, pagerduty://KEY, opsgenie://KEY, "
        "jira://MAIL:TOKEN@HOST/PROJECT or an address of apprise's such as slack://…, separated by spaces, each with a "
        "label before it if rules name it: oncall=…"
    )
    return InvalidSetting(SETTING, f"entry {position} {fact}", remedy)


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return 0


def _key_and_origin(url: str, position: int, default: str) -> tuple[str, str]:
    """Return the key of ``pagerduty://KEY@HOST``, and the origin of that host or of the default."""
    key, _, host = urlsplit(url).netloc.partition("@")
    if not KEY.fullmatch(key) or _port(url) == 0:
        raise _unusable(position, "names no key of 8 to 64 letters and digits, as in pagerduty://KEY or …://KEY@HOST")
    return key, f"{'http' if host and is_loopback(urlsplit(url).hostname) else 'https'}://{host or default}"


def _jira(url: str, position: int) -> tuple[str, str, str, str]:
    """Return header, origin, project and type of tickets of ``jira://MAIL:TOKEN@HOST/PROJECT?type=Bug``."""
    parts = urlsplit(url)
    secret, _, host = parts.netloc.rpartition("@")
    place, kind = PLACE.fullmatch(parts.path), re.fullmatch(r"(?:type=([^&=]+))?", parts.query)
    if not (given := CREDENTIAL.fullmatch(unquote(secret))) or not parts.hostname or _port(url) == 0:
        form = "jira://MAIL:TOKEN@HOST/PROJECT, of a Data Center jira://TOKEN@HOST/PROJECT, with / and # as %2F and %23"
        raise _unusable(position, f"names no token or host, as in {form}")
    if not place or not kind or parts.fragment:
        raise _unusable(position, "names no project's key, or more than a type, as in jira://…@HOST/OPS?type=Bug")
    basic = f"Basic {b64encode(given[0].encode()).decode()}"
    origin = f"{'http' if is_loopback(parts.hostname) else 'https'}://{host}{place['context']}"
    return basic if given["mail"] else f"Bearer {given[0]}", origin, place["project"], unquote_plus(kind[1] or "Task")


def _recipients(path: str, position: int) -> tuple[str, ...]:
    addresses = tuple(address.strip() for address in unquote(path).split(",") if address.strip())
    if not addresses:
        raise _unusable(position, "names no address after mailto:")
    for address in addresses:
        try:
            validate_email(address)
        except ValidationError as error:
            raise _unusable(position, f"names {address!r}, which is not an e-mail address") from error
    return addresses
