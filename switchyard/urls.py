"""Addresses for a project's ``urls.py``: ``path("", include(…))``, before those of the admin.

A project that mounts its own routers on the API calls ``build_api`` with them, and includes
``switchyard.operations.urls`` instead.
"""

from importlib.util import find_spec

from django.apps import apps as installed_apps
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, include, path

from switchyard import __name__ as library

if not installed_apps.is_installed(f"{library}.operations"):
    raise ImproperlyConfigured(
        f"{library}.urls are included, and INSTALLED_APPS lacks {library}'s apps: "
        f"write INSTALLED_APPS += {library}.apps()"
    )

urlpatterns: list[URLPattern | URLResolver] = [path("", include("switchyard.operations.urls"))]

if find_spec("ninja") is not None:
    from switchyard.api.application import PLATFORM_ROUTERS, build_api
    from switchyard.api.middleware import PREFIX

    urlpatterns.append(path(PREFIX, build_api(*PLATFORM_ROUTERS).urls))
