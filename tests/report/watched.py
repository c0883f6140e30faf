"""A page in the browser that remembers what it said and what it asked for."""

from __future__ import annotations

from playwright.sync_api import Page


class Seen:
    """A page in the browser, with everything it said and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    @property
    def outside(self) -> list[str]:
        """Requests for anything but the file itself and the data it holds."""
        own = self.page.url.partition("#")[0]
        return [url for url in self.requests if url != own and not url.startswith("data:")]
