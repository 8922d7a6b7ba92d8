from django.apps import AppConfig


class HostsYardConfig(AppConfig):
    name = "tests.chaos.hosts_yard"
    label = "hosts_yard"
