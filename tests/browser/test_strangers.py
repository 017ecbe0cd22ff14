# SPDX-License-Identifier: Apache-2.0
"""What strangers do: odd names and addresses, back and forward, two tabs, a browser that keeps nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Playwright, expect

from tests.browser.browser import ORIGIN, TOKEN, Chromium, Tab, chromium, hide, start_service
from tests.browser.test_sessions import ROWS
from tests.browser.test_views import EVIL
from tests.lab.lab import Lab
from tests.lab.scenarios import policy
from tests.lab.service import Service
from tests.lab.waiting import wait_equal

INTERFACES = 300
SESSIONS = 450  # three pages
FORBIDDEN = """Object.defineProperty(window, "localStorage", {
    get() { throw new DOMException("no", "SecurityError"); }
})"""


class World:
    def __init__(self, lab: Lab, browser: Chromium, service: Service) -> None:
        self.lab, self.browser, self.service = lab, browser, service


@pytest.fixture(scope="module")
def world(playwright: Playwright, programs: None) -> Iterator[World]:
    with Lab(client=1, server=1) as lab, chromium(playwright, lab) as browser:
        lab.server()
        service = start_service(lab, policy(lab, "a", "none"), policy(lab, "b"))
        lab.client(cgroup="a").open(SESSIONS)
        wait_equal(lambda: service.get("/v1/status")["sessions"], SESSIONS)
        yield World(lab, browser, service)


@pytest.fixture(autouse=True)
def tabs_are_closed(world: World) -> Iterator[None]:
    yield
    world.browser.end_of_test()


@pytest.fixture
def service(world: World) -> Service:
    return world.service


@pytest.fixture
def browser(world: World) -> Chromium:
    return world.browser


def change(tab: Tab, service: Service, path: str, document: Callable[[Any], Any]) -> None:
    """Change the JSON of an answer to the page."""
    tab.page.route(f"**{path}*", lambda route: route.fulfill(json=document(service.get(path))))


def test_names_that_no_service_gives(browser: Chromium, service: Service) -> None:
    """A policy and an interface whose names are HTML are text, wherever they are shown or asked for."""
    tab = browser.open("#/doctor", failures=True)

    def rename(document: Any) -> Any:
        text = json.dumps(document).replace('"name": "a"', f'"name": {json.dumps(EVIL)}')
        text = text.replace('"policy": "a"', f'"policy": {json.dumps(EVIL)}')
        return json.loads(text.replace('"eth0"', json.dumps(EVIL)))

    for path in ("/v1/policies", "/v1/interfaces", "/v1/addresses", "/v1/sessions"):
        change(tab, service, path, rename)
    tab.go("#/overview")
    expect(tab.page.locator("[aria-label=Policies] tbody th").first).to_have_text(EVIL)
    expect(tab.page.locator("[aria-label=Interfaces] tbody th", has_text=EVIL)).to_be_visible()
    tab.page.get_by_role("link", name=EVIL).click()
    tab.heading("Sessions")
    expect(tab.page.get_by_label("Policy")).to_have_value(EVIL)
    assert tab.page.locator("img").count() == 1  # the brand's


def test_hundreds_of_interfaces(browser: Chromium, service: Service) -> None:
    """The table has all that the API names and counts the rest; as many are drawn as there are colours."""
    tab = browser.open("#/doctor")

    def multiply(document: Any) -> Any:
        one = next(i for i in document["interfaces"] if i["used"])
        many = [{**one, "name": f"eth{i}", "bytes_sent": i} for i in range(256)]
        return {**document, "interfaces": many, "left_out": INTERFACES - 256}

    change(tab, service, "/v1/interfaces", multiply)
    tab.page.route("**/v1/interfaces/*/series", lambda route: route.fulfill(json=NO_SERIES))
    tab.go("#/overview")
    tab.count("[aria-label=Interfaces] tbody tr", 256)
    tab.count(".legend .swatch", 8)
    expect(tab.page.get_by_text("And 44 more")).to_be_visible()
    names = tab.page.locator("[aria-label=Interfaces] tbody th .name")
    tab.page.get_by_role("button", name="Volume").click()
    expect(names.first).to_have_text("eth255")
    expect(tab.page.get_by_role("columnheader", name="Volume")).to_have_attribute("aria-sort", "descending")
    tab.page.keyboard.press("Enter")
    expect(names.first).to_have_text("eth0")
    expect(tab.page.get_by_role("columnheader", name="Volume")).to_have_attribute("aria-sort", "ascending")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("columnheader", name="Volume")).to_have_attribute("aria-sort", "none")


NO_SERIES: dict[str, Any] = {
    "interval": 1.0,
    "end": None,
    "times": [],
    "series": [],
    "sampled_sessions": 0,
    "sessions": 0,
}


def test_searches_that_are_no_names(browser: Chromium) -> None:
    """They are searched for as they stand; what is too long is refused in words."""
    tab = browser.open("#/sessions", failures=True)
    tab.count("[role=grid]", 1)
    for text in (".*[(", "\\", "a" * 300, "%00&limit=1", EVIL):
        tab.evaluate(f"location.hash = '#/sessions?' + new URLSearchParams({{search: {json.dumps(text)}}})")
        expect(tab.page.get_by_role("searchbox")).to_have_value(text)
        nothing = tab.page.get_by_text("There is no such session now.")
        expect(nothing.or_(tab.page.get_by_role("alert"))).to_be_visible()
        tab.evaluate("location.hash = '#/sessions'")
        tab.count("[role=grid]", 1)
    assert tab.page.locator("img").count() == 1


def test_back_and_forward(browser: Chromium) -> None:
    """Back leads to the list with its filters, where it was left; forward to the session again."""
    tab = browser.open("#/sessions?policy=a")
    tab.live()
    tab.page.get_by_role("grid").focus()

    def at_the_end() -> bool:
        tab.page.keyboard.press("End")
        return tab.page.locator(f"#row-{SESSIONS - 1}.active").is_visible()

    tab.wait(at_the_end, "the last of all pages")
    token = tab.page.locator(f"{ROWS}.active a").first.inner_text()
    tab.page.keyboard.press("Enter")
    tab.heading(f"Session {token}")
    tab.page.go_back()
    tab.heading("Sessions")
    expect(tab.page.get_by_label("Policy")).to_have_value("a")
    expect(tab.page.locator(f"{ROWS}.active a").first).to_have_text(token)
    expect(tab.page.locator(f"{ROWS}.active")).to_be_in_viewport()
    tab.page.go_forward()
    tab.heading(f"Session {token}")


def test_a_session_that_never_was(browser: Chromium) -> None:
    """It is not asked for again and again."""
    tab = browser.open("#/session/0xdeadbeef", failures=True)
    expect(tab.page.get_by_role("alert")).to_contain_text("There is no such session")
    tab.live()
    tab.wait(tab.settled, "the first answers")
    tab.requests.clear()
    tab.wait(lambda: "GET /v1/status" in tab.requests, "what else is asked for")
    assert "GET /v1/sessions/0xdeadbeef" not in tab.requests


def test_two_tabs(browser: Chromium) -> None:
    """Who logs out in one is out in both; who logs in again in one is in where he looks."""
    tab = browser.open("#/overview", failures=True)
    tab.live()
    other = browser.beside(tab, "#/overview")
    other.live()
    tab.page.get_by_role("button", name="Log out").click()
    other.heading("Log in")
    tab.page.get_by_label("Token").fill(TOKEN)
    tab.page.keyboard.press("Enter")
    tab.heading("Overview")
    other.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    other.heading("Overview")
    other.live()


def test_a_browser_that_keeps_nothing(browser: Chromium) -> None:
    """Where localStorage is forbidden, the page works, and colours are chosen for as long as it is open."""
    tab = browser.open("#/overview", script=FORBIDDEN)
    tab.live()
    tab.page.get_by_role("button", name="Use dark colours").click()
    expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_browser_without_scripts(browser: Chromium) -> None:
    """It says what the page needs; so does one that could not load a part of it."""
    page = browser.browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{ORIGIN}/")
    expect(page.get_by_text("Where nothing more appears")).to_be_visible()
    assert "This page needs JavaScript" in page.content()
    page.context.close()
    page = browser.context().new_page()
    page.route("**/web/polling.js", lambda route: route.abort())
    page.goto(f"{ORIGIN}/")
    expect(page.get_by_text("Where nothing more appears")).to_be_visible()
    page.context.close()


def test_motion_and_zoom(browser: Chromium) -> None:
    """Nothing moves for those who want no motion; at 200 % nothing is beside the screen."""
    tab = browser.open("#/overview", reduced_motion="reduce", device_scale_factor=2)
    tab.live()
    tab.page.set_viewport_size({"width": 640, "height": 450})  # 1280 by 900, twice as large
    expect(tab.page.locator(".share-bar").first).to_be_visible()
    for bar in tab.page.locator(".share-bar, .share-bar span").all():
        assert bar.evaluate("bar => getComputedStyle(bar).transitionDuration") == "0s"
    assert tab.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")


def test_features_that_are_missing(browser: Chromium, service: Service) -> None:
    """The doctor names them with their remedies; the banner about optional ones can be hidden for good."""
    missing = [check for check in service.get("/v1/status")["kernel"]["checks"] if not check["ok"]]
    if not missing:
        pytest.skip("this kernel has everything")
    tab = browser.open("#/doctor")
    banner = tab.page.locator(".banners .notice.warn")
    for check in missing:
        expect(banner).to_contain_text(check["name"])
        expect(
            tab.page.locator("[aria-label=Checks] tbody tr", has_text=check["name"]).first
        ).to_contain_text(check["remedy"])
    banner.get_by_role("button", name="Hide").click()
    tab.page.reload()
    tab.live()
    tab.count(".banners .notice", 0)


def test_a_page_that_is_hidden(browser: Chromium) -> None:
    """It asks for nothing, and hears no events; once it is in view, it goes on."""
    tab, other = browser.open("#/overview"), browser.open("#/overview")
    for one in (tab, other):
        one.live()
    hide(tab, hidden=True)
    tab.wait(tab.settled, "the last answers")
    tab.requests.clear()
    other.requests.clear()
    other.wait(lambda: other.requests.count("GET /v1/interfaces") > 3, "what a page in view asks for")
    tab.wait(lambda: True, "what it has asked for")
    assert tab.requests == []
    hide(tab, hidden=False)
    tab.wait(lambda: {"GET /v1/events", "GET /v1/interfaces"} <= set(tab.requests), "the page asks again")


def test_a_code_that_nobody_gave(browser: Chromium) -> None:
    """It leaves the address at once, is refused in words, and the form is there."""
    tab = browser.open("#code=nonsense", login=False, failures=True)
    tab.heading("Log in")
    expect(tab.page.get_by_role("alert")).to_contain_text("not valid")
    assert urlsplit(tab.page.url).fragment == ""
    assert tab.page.url.startswith(ORIGIN)


def test_a_view_that_does_not_exist(browser: Chromium) -> None:
    """It is said, with a way out."""
    tab = browser.open("#/nothing")
    tab.heading("There is no such view")
    tab.page.get_by_role("link", name="To the overview").click()
    tab.heading("Overview")


def test_a_search_that_is_left(browser: Chromium) -> None:
    """Who goes elsewhere while typing stays there; a filter chosen while typing stays, too."""
    tab = browser.open("#/sessions")
    search = tab.page.get_by_role("searchbox")
    search.fill("10.77")
    tab.page.get_by_label("State").select_option("established")
    tab.wait(lambda: "search=10.77" in tab.page.url, "the search is in the address")
    assert "state=established" in tab.page.url
    # In one turn of the page: no time passes between the two. The last timer ends after that of the search.
    tab.evaluate(
        """() => {
            const field = document.querySelector("input[type=search]");
            field.value = "10.78";
            field.dispatchEvent(new Event("input", { bubbles: true }));
            location.hash = "#/doctor";
            return new Promise((done) => setTimeout(done, 300));
        }"""
    )
    tab.heading("Doctor")
    assert tab.page.url.endswith("#/doctor")


def test_unknown_sessions(browser: Chromium) -> None:
    """One that is not there, and what is no token, are said; the way back is on the page."""
    tab = browser.open(failures=True)
    for token in ("0xdeadbeef", "nonsense", "%3Cb%3E", "a%2Fb", "%E0%A4%A"):
        tab.go(f"#/session/{token}")
        expect(tab.page.get_by_role("alert")).to_contain_text("There is no such session")
        tab.page.get_by_role("main").get_by_role("link", name="Sessions").click()
        tab.heading("Sessions")
