"""Faults of a page while it is open: errors, breaches of its policy, requests to elsewhere."""

from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Dialog, Page, Request, Response

# Chromium reports a page's own status as an error of the console.
OWN_STATUS = "Failed to load resource: the server responded with a status of"


class Watch:
    """Everything that is wrong with a page, gathered from now on.

    Breaches of the Content Security Policy are errors of the console, as is every exception that nobody caught.
    """

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self._page = page
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(OWN_STATUS):
            self.errors.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _dialog(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        found = urlsplit(request.url)
        if found.scheme in ("http", "https", "ws", "wss") and found.hostname != "127.0.0.1":
            self.errors.append(f"request to elsewhere: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.request.resource_type != "document":
            self.errors.append(f"{response.status} for {response.url}")
