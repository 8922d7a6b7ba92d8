"""The project's apps without its products, for yards of tests.

Their processes are started hundreds of times. The admin's modules and those of the API are each a fifth of what a start
loads, and a worker shows no page: ``tests.library_urls`` loads them.
"""

from project.settings import INSTALLED_APPS

ADMIN, ADMIN_WITHOUT_PAGES = "django.contrib.admin", "django.contrib.admin.apps.SimpleAdminConfig"

NEEDED = [app for app in INSTALLED_APPS if not app.startswith("apps.")]
LIBRARY_APPS = [ADMIN_WITHOUT_PAGES if app == ADMIN else app for app in NEEDED]
