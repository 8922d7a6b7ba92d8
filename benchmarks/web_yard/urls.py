"""The API with the route; no pages."""

from django.urls import path

from switchyard.api.application import PLATFORM_ROUTERS, build_api
from switchyard.api.middleware import PREFIX

api = build_api(*PLATFORM_ROUTERS, ("/nothings", "benchmarks.web_yard.api.router"))
urlpatterns = [path(PREFIX, api.urls)]
