"""A Chromium for the tests of the page of `xpnet explore`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = "chromium", "chromium-browser", "google-chrome"
PATIENCE = 30_000               # milliseconds: the machine may be busy


def executable(playwright: Any) -> str:
    """The path of an installed Chromium, or that of Playwright; skips the test without one."""
    found = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
    if not Path(found).exists():
        pytest.skip(f"none of {', '.join(NAMES)} is installed, and Playwright has no Chromium")
    return str(found)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; skips the test if Playwright or a Chromium is missing."""
    api = pytest.importorskip("playwright.sync_api",
                              reason='playwright is not installed: pip install "xpnet[browser]"')
    with api.sync_playwright() as playwright:
        # The sandbox of Chromium does not start as root, and in containers tests run as root.
        browser = playwright.chromium.launch(executable_path=executable(playwright),
                                             args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and what went wrong in it: requests to other hosts, errors, messages of the console.

    Args:
        browser: from `chromium`.
        url: of the page that is opened.
        options: of the browser's context, e.g. its viewport.
    """

    def __init__(self, browser: Any, url: str, options: dict[str, Any]) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.host = url.split("/")[2]
        self.others: list[str] = []
        self.errors: list[str] = []
        self.page = self.open(url)

    def open(self, url: str) -> Any:
        """Another tab."""
        page = self.context.new_page()
        page.on("request", lambda request: self._request(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self._console(message))
        page.goto(url)
        return page

    def _request(self, url: str) -> None:
        if not url.startswith((f"http://{self.host}/", "data:")):
            self.others.append(url)

    def _console(self, message: Any) -> None:
        # Chromium itself reports every answer that is not 2xx, also those that the page shows.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def close(self) -> None:
        """Close all tabs, and check what happened in them."""
        self.context.close()
        assert not self.others and not self.errors
