"""Debian's Chromium, driven by Playwright: for tests of the page, its screenshot and its measurement.

While a browser is open, its thread counts as one with a running event loop. So a recorder is used in another thread.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright

PROGRAM = shutil.which("chromium")
MISSING = "chromium is not installed"
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

#: How long (ms) a test waits for what it expects on a page.
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)

T = TypeVar("T")
#: Chromium reports each answer with a status of 400 or more as an error of the page; the page shows it itself.
_ANSWERED = re.compile(r"Failed to load resource: (the server responded with a status of \d+|net::ERR_)")


@contextmanager
def launched() -> Iterator[Browser]:
    """Yield a browser; root may run it only without its sandbox."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and everything that it may not do: errors, warnings, dialogs, and requests to other hosts."""

    def __init__(self, page: Page, own: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        self._own = own
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self._request(request.url))
        page.on("popup", lambda popup: self.wrong.append(f"popup: {popup.url}"))

    def _console(self, message: ConsoleMessage) -> None:
        if _ANSWERED.match(message.text) is None:
            self.wrong.append(f"console: {message.text}")

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, url: str) -> None:
        if not url.startswith(self._own):
            self.wrong.append(f"request: {url}")


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Yield a page of a new session at an address; afterwards it must have done nothing that it may not."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    watched = Watched(context.new_page(), url.split("#")[0].rstrip("/"))
    try:
        watched.page.goto(url)
        yield watched.page
        assert watched.wrong == []
    finally:
        context.close()


def apart(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function in another thread, and wait for its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments, **options).result(60)
