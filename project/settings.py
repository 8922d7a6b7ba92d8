"""Django settings, built from the environment's :class:`project.config.Config`."""

import os
import sys
from datetime import timedelta
from urllib.parse import unquote, urlsplit

import switchyard
from project import database
from project.config import BASE_DIR, load, make_metrics_dir
from switchyard.broker.errors import SwitchyardError

EX_CONFIG = 78

try:
    _CONFIG = load(os.environ)
    make_metrics_dir(_CONFIG.library)
except SwitchyardError as error:
    print(f"switchyard: refused to start: {error}", file=sys.stderr)
    raise SystemExit(EX_CONFIG) from error

SWITCHYARD = _CONFIG.library
PAYMENT_SECRET = _CONFIG.payment_secret
ALLOWED_PRIVATE_ADDRESSES = _CONFIG.allowed_private_addresses
RETENTION_DAYS = _CONFIG.retention_days

# prometheus-client chooses its storage when it is first imported, by this variable.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(SWITCHYARD.metrics_dir))

DEBUG = _CONFIG.debug
SECRET_KEY = _CONFIG.secret_key
ALLOWED_HOSTS = list(_CONFIG.allowed_hosts)
TEST_RUNNER = "project.refused_tests.RefusedTests"
ROOT_URLCONF = "project.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = ["project.formats"]

PRODUCT_APPS = [
    "apps.shop",
    "apps.retention",
    "apps.mail",
    "apps.reports",
    "apps.images",
    "apps.webhooks",
    "apps.billing",
    "apps.exports",
]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
    "axes",
    *switchyard.apps(),
    *PRODUCT_APPS,
]

MIDDLEWARE = [
    "project.middleware.content_security",  # first: refusals of the others are pages as well
    "django.middleware.security.SecurityMiddleware",
    "switchyard.frame.control_characters.control_characters",
    "switchyard.frame.silent_database.SilentDatabase",  # before all that read a session
    "switchyard.jobs.request_origin.request_origin",
    "switchyard.api.middleware.problem_documents",
    "project.middleware.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it replaces the answer to a login
]

if _CONFIG.has_development_keys:
    MIDDLEWARE.insert(0, "project.middleware.loopback_only")

# Failed logins count by user name and address together: nobody locks the owner out from elsewhere.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "project.error_pages.login_paused"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True  # a row for each login would never be removed
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS: list[str] = []  # the log says whose password was guessed, and from where
# uvicorn has replaced it by the client's that a trusted proxy (FORWARDED_ALLOW_IPS) passed on.
AXES_IPWARE_META_PRECEDENCE_ORDER = ["REMOTE_ADDR"]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_DIRECT = database.is_direct(sys.argv)
DATABASES = {
    "default": database.declared(
        _CONFIG.database_direct_url if _DIRECT else _CONFIG.database_url,
        bounced=_CONFIG.database_bounced and not _DIRECT,
        state_dir=SWITCHYARD.state_dir,
    )
}

_VALIDATION = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{_VALIDATION}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_VALIDATION}.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": f"{_VALIDATION}.CommonPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 3_600

DRAMATIQ_AUTODISCOVER_MODULES = ["actors"]
DRAMATIQ_TASKS_DATABASE = "default"

LOGIN_REDIRECT_URL = "switchyard-operations"

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = DEBUG
MEDIA_ROOT = _CONFIG.storage.folder  # "" where files are on no disk of this machine
STORAGES = {
    "default": _CONFIG.storage.entry,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

_smtp = urlsplit(_CONFIG.smtp_url)
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = _smtp.hostname
EMAIL_PORT = _smtp.port or (465 if _smtp.scheme == "smtps" else 25)
EMAIL_HOST_USER = unquote(_smtp.username or "")
EMAIL_HOST_PASSWORD = unquote(_smtp.password or "")
EMAIL_USE_SSL = _smtp.scheme == "smtps"
EMAIL_USE_TLS = _smtp.scheme == "smtp" and bool(_smtp.username)  # no password goes over an open line
EMAIL_TIMEOUT = 8
DEFAULT_FROM_EMAIL = "Switchyard <no-reply@switchyard.example>"

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SECURE_PROXY_SSL_HEADER = None  # uvicorn reads the scheme, from trusted proxies only
SECURE_SSL_REDIRECT = _CONFIG.ssl_redirect
# Probes and Prometheus reach the web without the TLS proxy.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = _CONFIG.hsts_s
# Subdomains and preload lists are for the owner of the domain to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if _CONFIG.database_bounced and _DIRECT:
    SILENCED_SYSTEM_CHECKS.append("switchyard.W010")  # too few connections: all but this command share the bouncer's

LOGGING_CONFIG = None  # middleware/logs.py configures logging, the same in web, workers and scheduler
