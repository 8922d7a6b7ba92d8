from django.apps import AppConfig


class HostsYardConfig(AppConfig):
    """The actors of the two hosts."""

    name = "tests.chaos.hosts_yard"
    label = "hosts_yard"
