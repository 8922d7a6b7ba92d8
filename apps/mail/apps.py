from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from switchyard.broker.errors import UnknownQueue
from switchyard.conf import declared_yard


class MailConfig(AppConfig):
    name = "apps.mail"

    def ready(self) -> None:
        checks.register(check_reset_retries, "switchyard")


def check_reset_retries(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse retries of a password reset that may outlast its link: a mail that late is of no use to anybody."""
    from apps.mail.actors import send_password_reset
    from switchyard.console.formatting import duration, retries_text
    from switchyard.middleware.retries import span_of

    try:
        policy = declared_yard().queue_of(send_password_reset.queue_name).retry
    except UnknownQueue:  # another check names the queue
        return []
    span_ms, valid_ms = span_of(send_password_reset, policy), settings.PASSWORD_RESET_TIMEOUT * 1_000
    if span_ms[1] < valid_ms:
        return []
    retries = send_password_reset.options.get("max_retries", policy.retries)
    fact = f"{retries_text(retries, span_ms)}, but its link is valid for {duration(valid_ms)}"
    hint = "Lower max_retries of the actor, or the delays of its queue in project/topology.py."
    return [checks.Error(fact, hint=hint, obj=f"actor {send_password_reset.actor_name}", id="switchyard.E061")]
