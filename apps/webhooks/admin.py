"""Admin of webhooks: endpoints, deliveries with their attempts, and redelivery."""

import json

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from apps.webhooks import publishing, services
from apps.webhooks.models import Attempt, Delivery, Endpoint, Event
from switchyard.broker.errors import BrokerError
from switchyard.console.lists import CheckedQuery, JobLink
from switchyard.console.room_view import ReadOnly


class AttemptInline(ReadOnly, admin.StackedInline):
    """The attempts of a delivery, on its page."""

    model = Attempt
    extra = 0
    fields = readonly_fields = ("number", "at", "status_code", "duration_ms", "error", "response_excerpt")


class DeliveryInline(ReadOnly, admin.StackedInline):
    """The deliveries of an event, on its page."""

    model = Delivery
    extra = 0
    show_change_link = True
    fields = readonly_fields = ("webhook_id", "endpoint", "state", "attempts_count", "last_status_code")


@admin.register(Endpoint)
class EndpointAdmin(ReadOnly, CheckedQuery):
    """Endpoints. A secret is shown once, when it is created; afterwards only its last characters."""

    deletable = True  # deleted together with its deliveries
    list_display = ("shown_url", "shown_events", "active", "owner_key", "created_at")
    list_filter = ("active", "created_at")
    search_fields = ("url", "=owner_key")
    search_help_text = "URL or owner"
    fields = readonly_fields = (
        "id", "owner_key", "shown_url", "shown_events", "active", "in_order", "disabled_reason", "shown_secret",
        "created_at",
    )  # fmt: skip
    actions = ("enable", "disable")
    run_right = "webhooks.operate_endpoint"

    @admin.display(description="Events")
    def shown_events(self, endpoint: Endpoint) -> str:
        return ", ".join(endpoint.events)

    @admin.display(description="Secret")
    def shown_secret(self, endpoint: Endpoint) -> str:
        return f"whsec_…{endpoint.secret[-4:]}"

    @admin.action(description="Enable", permissions=["run"])
    def enable(self, request: HttpRequest, endpoints: QuerySet[Endpoint]) -> None:
        count = sum(services.enable(pk) for pk in endpoints.values_list("pk", flat=True))
        messages.success(request, f"{count} enabled. What was skipped meanwhile can be redelivered.")

    @admin.action(description="Disable", permissions=["run"])
    def disable(self, request: HttpRequest, endpoints: QuerySet[Endpoint]) -> None:
        reason = f"disabled by {request.user.get_username()}"
        count = sum(services.disable(pk, reason) for pk in endpoints.values_list("pk", flat=True))
        messages.success(request, f"{count} disabled. Deliveries on their way to them are skipped.")


@admin.register(Event)
class EventAdmin(ReadOnly, CheckedQuery):
    """Events with their deliveries."""

    list_display = ("type", "owner_key", "created_at")
    list_filter = ("type", "created_at")
    search_fields = ("=type", "=owner_key")
    search_help_text = "Type of event or owner"
    fields = readonly_fields = ("id", "type", "owner_key", "created_at", "shown_payload")
    inlines = (DeliveryInline,)

    @admin.display(description="Payload")
    def shown_payload(self, event: Event) -> str:
        text = json.dumps(json.loads(event.payload), indent=2, ensure_ascii=False)
        return format_html("<pre>{}</pre>", text)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly, JobLink):
    """Deliveries with their attempts, and an action that redelivers."""

    list_display = (
        "event_type", "shown_endpoint", "state", "attempts_count", "last_status_code", "last_attempt_at",
        "created_at",
    )  # fmt: skip
    list_filter = ("state", "endpoint__active", "created_at")
    list_select_related = ("event", "endpoint")
    search_fields = ("=job_id", "endpoint__url", "=event__type")
    search_help_text = "Job id, URL or type of event"
    fields = readonly_fields = (
        "webhook_id", "event", "endpoint", "state", "attempts_count", "created_at", "last_attempt_at", "finished_at",
        "job_id",
    )  # fmt: skip
    inlines = (AttemptInline,)
    actions = ("redeliver",)
    run_right = "webhooks.redeliver_delivery"

    @admin.display(description="Event", ordering="event__type")
    def event_type(self, delivery: Delivery) -> str:
        return delivery.event.type

    @admin.display(description="Endpoint", ordering="endpoint__url")
    def shown_endpoint(self, delivery: Delivery) -> str:
        return delivery.endpoint.shown_url

    @admin.action(description="Redeliver", permissions=["run"])
    def redeliver(self, request: HttpRequest, deliveries: QuerySet[Delivery]) -> None:
        """Enqueue a new job for each chosen delivery, with the same webhook-id."""
        try:
            jobs = publishing.redeliver(deliveries.values_list("pk", flat=True))
        except BrokerError as error:
            messages.error(request, f"Not all were sent: {error}")
        else:
            messages.success(request, f"{len(jobs)} on the way again, each in a new job.")
