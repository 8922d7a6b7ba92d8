"""Answer to a project that lists this package itself in ``INSTALLED_APPS``: Django looks here for an app's models."""

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from switchyard import __name__ as library

if library in settings.INSTALLED_APPS:
    raise ImproperlyConfigured(
        f'INSTALLED_APPS lists "{library}", which is not an app but a package of apps: remove it, and write '
        f"INSTALLED_APPS += {library}.apps()"
    )
