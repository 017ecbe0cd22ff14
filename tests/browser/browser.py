# SPDX-License-Identifier: Apache-2.0
"""A service with its page in a lab's namespace, and Debian's Chromium beside it there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, expect

from tests.lab.lab import Lab
from tests.lab.service import ROOT, Service
from tests.lab.waiting import PATIENCE, wait_for

TOKEN = "a-token-that-only-this-test-knows"
PORT = 8642
ORIGIN = f"http://127.0.0.1:{PORT}"
AXE = ROOT / "build/axe/node_modules/axe-core/axe.min.js"
LOG_IN = "async token => (await fetch('/v1/login', {method: 'POST', body: JSON.stringify({token})})).status"
STREAM = "/v1/events"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
Size = Literal["desktop", "phone"]
Scheme = Literal["light", "dark"]

expect.set_options(timeout=10_000 * PATIENCE)


def start_service(lab: Lab, *policies: dict[str, Any], **top: Any) -> Service:
    """A service of the client's namespace that serves its page over TCP."""
    token, socket = lab.directory / "token", lab.directory / "api.sock"
    if not token.exists():
        token.write_text(TOKEN)
        token.chmod(0o600)
    tcp = {"listen": f"127.0.0.1:{PORT}", "token_file": str(token)}
    config = {
        "api": {"unix": str(socket), "tcp": tcp},
        "addresses": {"include": ["eth*"]},
        "policies": list(policies),
        **top,
    }
    service = lab.service(config, start=False)
    service.socket_path = socket
    return service.start()


@contextlib.contextmanager
def chromium(playwright: Playwright, lab: Lab) -> Iterator[Chromium]:
    """Chromium in the namespace of the lab's client: its loopback is the service's."""
    program = shutil.which("chromium")
    assert program, "there is no chromium: make test-browser installs it"
    inside = lab.directory / "chromium"
    inside.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{lab.netns("client")} {program} "$@"\n')
    inside.chmod(0o755)
    # Root needs --no-sandbox; only pages of the service under test are opened.
    browser = playwright.chromium.launch(executable_path=str(inside), args=["--no-sandbox"])
    try:
        yield Chromium(browser)
    finally:
        browser.close()


class Chromium:
    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.tabs: list[Tab] = []

    def context(self, size: Size = "desktop", scheme: Scheme = "light", **more: Any) -> BrowserContext:
        """``more``: what a browser has besides, such as ``timezone_id``."""
        width, height = SIZES[size]
        return self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **more
        )

    def open(
        self,
        where: str = "#/overview",
        size: Size = "desktop",
        scheme: Scheme = "light",
        *,
        login: bool = True,
        header: bool = False,
        failures: bool = False,
        zone: str = "UTC",
        script: str = "",
        **more: Any,
    ) -> Tab:
        """A tab of a browser of its own, logged in as by the form. ``failures``: requests may fail.

        ``header``: instead of a login, the token is added on the way, as a proxy does. ``zone`` is the
        time zone of the browser, ``script`` runs before those of the page, ``more`` is as for ``context``.
        """
        page = self.context(size, scheme, timezone_id=zone, **more).new_page()
        if script:
            page.add_init_script(script)
        if header:
            page.set_extra_http_headers({"Authorization": f"Bearer {TOKEN}"})
        elif login:
            # An empty page of the same origin, which names an icon: for one that does not, Chromium asks
            # for /favicon.ico whenever it has time, and reports the 404 to the tab that is tested.
            blank = '<!doctype html><link rel="icon" href="data:,">'
            page.route(f"{ORIGIN}/blank", lambda route: route.fulfill(body=blank, content_type="text/html"))
            page.goto(f"{ORIGIN}/blank")
            assert page.evaluate(LOG_IN, TOKEN) == 204
        tab = Tab(page, failures)
        self.tabs.append(tab)
        tab.go(where)
        return tab

    def beside(self, tab: Tab, where: str) -> Tab:
        """One more tab of the browser of ``tab``: it has the same cookies."""
        other = Tab(tab.page.context.new_page(), tab.failures)
        self.tabs.append(other)
        other.go(where)
        return other

    def end_of_test(self) -> None:
        """Close all tabs. AssertionError where a console complained."""
        tabs, self.tabs = self.tabs, []
        for tab in tabs:
            tab.page.context.close()
        complaints = [line for tab in tabs for line in tab.complaints]
        assert not complaints, "\n".join(complaints)


class Tab:
    """A page, what its console said, and what it asked for."""

    def __init__(self, page: Page, failures: bool) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.running = set[Request]()  # without an answer; the stream of events never has its end
        self.failures = failures
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack}"))
        page.on("request", self._request)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium itself complains of each request that fails: where a test makes them fail, that is no news.
        if self.failures and message.text.startswith("Failed to load resource"):
            return
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} {message.location}")

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        self.requests.append(f"{request.method} {url.path}")
        if url.path != STREAM:
            self.running.add(request)

    def _ended(self, request: Request) -> None:
        self.running.discard(request)

    def settled(self) -> bool:
        """Whether all requests are answered."""
        return not self.running

    def go(self, where: str) -> None:
        """``where``: the address, or its fragment at the service's own."""
        self.page.goto(where if where.startswith("http:") else f"{ORIGIN}/{where}")

    def heading(self, text: str | re.Pattern[str]) -> None:
        """Wait for the view of this name."""
        expect(self.page.locator("h1")).to_have_text(text)

    def live(self) -> None:
        """Wait until the page follows the events of the service."""
        expect(self.page.locator(".connection")).to_contain_text("Live")

    def count(self, selector: str, number: int) -> None:
        expect(self.page.locator(selector)).to_have_count(number)

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)

    def rows(self) -> list[list[str]]:
        """The cells of the first table after the heading ``Paths``: one row per subflow."""
        script = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
        found: list[list[str]] = self.page.locator("[aria-label=Subflows] tbody tr").evaluate_all(script)
        return found

    def wait(self, probe: Callable[[], object], what: str) -> None:
        """As ``wait_for``, while the page's own messages are taken."""

        def look() -> object:
            self.page.wait_for_timeout(20)
            return probe()

        wait_for(look, what)


def hide(tab: Tab, *, hidden: bool) -> None:
    """A tab behind another one, as the page sees it: headless Chromium hides none."""
    tab.evaluate(
        f"""() => {{
          Object.defineProperty(document, "hidden", {{ value: {str(hidden).lower()}, configurable: true }});
          document.dispatchEvent(new Event("visibilitychange"));
        }}"""
    )


def pairs(tab: Tab) -> set[str]:
    """The subflows that the page shows, ``local:port remote:port``."""
    found = (re.search(r"(\S+:\d+) → (\S+:\d+)", row[0]) for row in tab.rows())
    return {f"{match[1]} {match[2]}" for match in found if match}


def pairs_of_kernel(lab: Lab, token: str) -> set[str]:
    """The same by ``ss``."""
    flows = lab.subflows("client").get(int(token, 16), [])
    return {f"{f.local}:{f.local_port} {f.remote}:{f.remote_port}" for f in flows if f.state == "ESTAB"}


def violations(tab: Tab) -> list[str]:
    """What axe-core finds wrong with the page as it is, one line for each rule and element."""
    assert AXE.exists(), "there is no axe-core: make test-browser fetches it"
    tab.evaluate(AXE.read_text())
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {rule['help']}: {node['html']} {json.dumps(node['any'] + node['all'])[:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def picture(tab: Tab, directory: Path, name: str, *, full_page: bool = True) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    tab.page.screenshot(path=str(directory / f"{name}.png"), full_page=full_page)
