# SPDX-License-Identifier: Apache-2.0
"""No view is wider than the screen, and no text is cut for good, on any screen and with the longest names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright, expect

from tests.browser.browser import Chromium, Tab, chromium, picture, start_service
from tests.browser.test_views import PICTURES
from tests.lab.lab import Lab
from tests.lab.waiting import wait_for

WIDTHS = (320, 390, 768, 1024, 1366, 1920)
POLICY = "a-policy-whose-name-is-as-long-as-sixty-characters-and-more-"
CGROUP = "/".join(("a-part-of-a-path-that-is-long-" + "x" * 12,) * 4)
INTERFACE = "abcdefghijklmno"  # IFNAMSIZ - 1
NETWORK = "2001:db8:1111:2222:3333:4444:5555"
VIEWS = ("overview", "sessions", "session", "addresses", "configuration", "doctor")
# What is beside the screen, or its frame; text of which a part can neither be seen nor is in a title.
MISFITS = """() => {
    const page = document.scrollingElement;
    const found = page.scrollWidth > page.clientWidth ? [`the page is ${page.scrollWidth} wide`] : [];
    const frames = ".table-frame, .grid, .card, .log, .notice, svg, pre, dl, nav";
    for (const frame of document.querySelectorAll(frames)) {
        if (frame.scrollWidth > frame.clientWidth + 1) {
            found.push(`${frame.className || frame.tagName} is ${frame.scrollWidth} in ${frame.clientWidth}`);
        }
    }
    for (const text of document.querySelectorAll("svg text")) {
        const box = text.closest(".end")?.querySelector("rect").getBoundingClientRect();
        const mine = text.getBoundingClientRect();
        const beside = box && (mine.left < box.left || mine.right > box.right);
        if (beside) found.push(`${text.textContent} is beside its box`);
    }
    const cells = "th, td, [role=gridcell], [role=columnheader], dd, dt, li, p, button, a, code";
    for (const cell of document.querySelectorAll(cells)) {
        const whole = cell.title || cell.querySelector("[title]") || cell.closest("[title]");
        if (cell.matches(".unseen, .unseen *, .skip") || whole) continue;
        const cut = getComputedStyle(cell).overflow !== "visible" && cell.scrollWidth > cell.clientWidth + 1;
        if (cut) found.push(`cut without a title: ${cell.className} ${cell.textContent.trim()}`);
        const box = cell.getBoundingClientRect();
        const beside = box.width && box.right > innerWidth + 1;
        if (beside) found.push(`beside the screen: ${cell.textContent.trim()}`);
    }
    return found;
}"""


class World:
    def __init__(self, browser: Chromium, token: str) -> None:
        self.browser, self.token = browser, token


@pytest.fixture(scope="module")
def world(playwright: Playwright, programs: None) -> Iterator[World]:
    with Lab(client=2, server=1) as lab, chromium(playwright, lab) as browser:
        lab.ip("client", "link", "add", INTERFACE, "type", "veth", "peer", "name", "other")
        lab.ip("client", "addr", "add", "10.99.99.1/24", "dev", INTERFACE)
        for side, device, host in (
            ("client", "eth0", "6666"),
            ("client", "eth1", "5555"),
            ("server", "eth0", "7777"),
        ):
            lab.ip(side, "addr", "add", f"{NETWORK}:{host}/128", "dev", device, "nodad")
        for side, device, host in (
            ("client", "eth0", "7777"),
            ("server", "eth0", "6666"),
            ("server", "eth0", "5555"),
        ):
            lab.ip(side, "route", "add", f"{NETWORK}:{host}/128", "dev", device)
        lab.server()
        plain = {"name": POLICY, "cgroup": lab.cgroup(CGROUP), "path_manager": "fullmesh"}
        options = {"user_timeout": {"advertise": "30s", "accept": {}}}
        service = start_service(lab, {**plain, "options": options}, addresses={"include": ["*"]})
        lab.client(cgroup=CGROUP).open(1)
        client = lab.client(f"{NETWORK}:7777", cgroup=CGROUP)
        client.open(1)
        sessions = wait_for(service.sessions, "two sessions", until=lambda found: len(found) == 2)
        (token,) = [s["token"] for s in sessions if ":" in s["subflows"][0]["remote"]["ip"]]
        yield World(browser, token)


def ready(tab: Tab, view: str) -> None:
    tab.live()
    expect(tab.page.locator("main").get_by_text("Loading …")).to_have_count(0)
    if view == "sessions":
        tab.count("[role=grid] [role=row][id]", 2)


@pytest.mark.parametrize("view", VIEWS)
def test_everything_fits(world: World, view: str) -> None:
    """From the smallest phone to the largest screen."""
    tab = world.browser.open(f"#/session/{world.token}" if view == "session" else f"#/{view}")
    ready(tab, view)
    found = []
    for width in WIDTHS:
        tab.page.set_viewport_size({"width": width, "height": 900})
        tab.wait(lambda: tab.evaluate("innerWidth") == width, "the new width")  # noqa: B023
        tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found += [f"{width}: {line}" for line in tab.evaluate(MISFITS)]
        picture(tab, PICTURES, f"widths-{view}-{width}")
    world.browser.end_of_test()
    assert found == [], "\n".join(found)
