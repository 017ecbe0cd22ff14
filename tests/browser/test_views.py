# SPDX-License-Identifier: Apache-2.0
"""Each view on a desktop and a phone, light and dark: axe-core finds nothing, and a picture is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright, expect

from tests.browser.browser import Chromium, Scheme, Size, Tab, chromium, picture, start_service, violations
from tests.lab.lab import Lab
from tests.lab.scenarios import policy
from tests.lab.service import ROOT, Service
from tests.lab.waiting import wait_for

PICTURES = ROOT / "build/browser"
EVIL = "<img src=x onerror=alert(1)>"
PLOTTED = 4  # answers, so that a picture has something to show
HEADINGS = {
    "overview": "Overview",
    "sessions": "Sessions",
    "session": "Session",
    "addresses": "Addresses",
    "configuration": "Configuration",
    "doctor": "Doctor",
}


class World:
    """Three links, three policies, sessions that send, and one that has a path missing."""

    def __init__(self, lab: Lab, browser: Chromium, service: Service) -> None:
        self.lab, self.browser, self.service = lab, browser, service
        self.token = ""


@pytest.fixture(scope="module")
def world(playwright: Playwright, programs: None) -> Iterator[World]:
    with Lab(client=3, server=1) as lab, chromium(playwright, lab) as browser:
        for link, mbit in ((1, 8), (2, 12), (3, 5)):  # one link is not enough for what is sent
            lab.shape(link, mbit)
        lab.server()
        service = start_service(
            lab,
            policy(lab, "sync"),
            policy(lab, "ssh", "backup"),
            {"name": "rest", "cgroup": "/", "path_manager": "none"},
            addresses={"include": ["eth*"], "exclude": ["eth9"], "backup": ["eth2"]},
        )
        world = World(lab, browser, service)
        clients = [lab.client(cgroup=name) for name in ("sync/backup.service", "ssh", f"sync/{EVIL}")]
        for client, count, rate in zip(clients, (3, 12, 2), (600_000, 20_000, 5_000), strict=True):
            client.open(count)
            client.begin("send", seconds=600, rate=rate)
        sessions = wait_for(
            lambda: service.sessions(policy="sync"),
            "sessions with three subflows",
            until=lambda found: [len(s["subflows"]) for s in found] == [3] * 5,
        )
        world.token = sessions[0]["token"]
        yield world


@pytest.fixture(autouse=True)
def tabs_are_closed(world: World) -> Iterator[None]:
    yield
    world.browser.end_of_test()


def ready(tab: Tab, view: str) -> None:
    """Wait until the view has its data."""
    tab.live()
    tab.heading(f"Session {tab.page.url.rpartition('/')[2]}" if view == "session" else HEADINGS[view])
    expect(tab.page.locator("main").get_by_text("Loading …")).to_have_count(0)
    if view in ("overview", "session"):
        # Two answers: then there is a rate.
        expect(tab.page.locator(".legend-value", has_text="bit/s").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_each_view(world: World, size: Size, scheme: Scheme) -> None:
    """No violation of axe-core, nothing beside the screen, and nothing that the console complains about."""
    tab = world.browser.open(size=size, scheme=scheme)
    found = []
    for view in HEADINGS:
        tab.go(f"#/session/{world.token}" if view == "session" else f"#/{view}")
        ready(tab, view)
        found += [f"{view}: {line}" for line in violations(tab)]
        wider = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{view} is {wider} pixels wider than the screen"
        picture(tab, PICTURES, f"{view}-{size}-{scheme}")
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_login(world: World, size: Size, scheme: Scheme) -> None:
    """The form has no violation either."""
    tab = world.browser.open(size=size, scheme=scheme, login=False, failures=True)
    tab.heading("Log in")
    assert violations(tab) == []
    picture(tab, PICTURES, f"login-{size}-{scheme}")


def test_the_dialogs(world: World) -> None:
    """Those of a session and of the configuration have no violation either."""
    tab = world.browser.open(f"#/session/{world.token}")
    tab.page.get_by_role("button", name="Open a subflow").click()
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    assert violations(tab) == []
    tab.page.keyboard.press("Escape")
    tab.count("dialog", 0)
    tab.go("#/configuration")
    tab.page.get_by_role("button", name="Reload").click()
    expect(tab.page.get_by_role("dialog")).to_contain_text("No session would be changed")
    assert violations(tab) == []
    tab.page.get_by_role("button", name="Cancel").click()
    tab.count("dialog", 0)


def test_names_are_text(world: World) -> None:
    """A cgroup whose name is HTML is shown as it is, wherever it is shown."""
    tab = world.browser.open("#/sessions?search=onerror")
    tab.count("[role=grid] [role=row][id]", 2)
    cell = tab.page.locator("[role=grid] .c-cgroup").nth(1)
    expect(cell).to_contain_text(EVIL)
    tab.page.locator("[role=grid] [role=row][id] a").first.click()
    expect(tab.page.locator(".facts-grid").first).to_contain_text(EVIL)
    tab.page.locator(".facts-grid a").last.click()
    expect(tab.page.locator(".chip")).to_contain_text(EVIL)
    assert tab.page.locator("img").count() == tab.page.locator("img[src='web/icon.svg']").count() == 1


def test_colours_are_the_readers_choice(world: World) -> None:
    """The button changes them, and the choice outlives the page."""
    tab = world.browser.open("#/doctor")
    assert tab.evaluate("document.documentElement.dataset.theme") == "light"
    tab.page.get_by_role("button", name="Use dark colours").click()
    tab.page.reload()
    tab.live()
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"


def test_keys(world: World) -> None:
    """The first Tab reaches the skip link; / the search; arrows and Enter a session."""
    tab = world.browser.open("#/doctor")
    tab.live()
    tab.page.keyboard.press("Tab")
    expect(tab.page.locator(":focus")).to_have_text("Skip to the content")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("main")).to_be_focused()
    tab.page.keyboard.press("/")
    tab.heading("Sessions")
    expect(tab.page.locator("input[type=search]")).to_be_focused()
    grid = tab.page.get_by_role("grid")
    grid.focus()
    third = tab.page.locator("#row-2 a").inner_text()
    for _ in range(2):
        tab.page.keyboard.press("ArrowDown")
    expect(grid).to_have_attribute("aria-activedescendant", "row-2")
    tab.page.keyboard.press("Enter")
    tab.heading(f"Session {third}")


@pytest.mark.parametrize(("view", "scheme"), [("overview", "light"), ("session", "dark")])
def test_pictures_for_the_documents(world: World, view: str, scheme: Scheme) -> None:
    """What docs/images shows is what the page looks like: they are copies of these, and small."""
    tab = world.browser.open("#/doctor", scheme=scheme)
    tab.page.set_viewport_size({"width": 1120, "height": 780})
    ready(tab, "doctor")
    for hide in tab.page.get_by_role("button", name="Hide").all():
        hide.click()
    tab.go(f"#/session/{world.token}" if view == "session" else f"#/{view}")
    ready(tab, view)
    path = f"GET /v1/sessions/{world.token}" if view == "session" else "GET /v1/interfaces"
    tab.wait(lambda: tab.requests.count(path) > PLOTTED, "some samples")
    picture(tab, PICTURES, f"document-{view}", full_page=False)
    assert (PICTURES / f"document-{view}.png").stat().st_size < 150_000
