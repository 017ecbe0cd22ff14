# SPDX-License-Identifier: Apache-2.0
"""The figures of the first screen are of now: with many policies, and where the browser's clock is wrong."""

from __future__ import annotations

import re
import time
from datetime import datetime
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Response, Route, expect

from tests.browser.browser import Chromium, Tab, start_service
from tests.lab.lab import Lab, cgroup2_root
from tests.lab.scenarios import policy
from tests.lab.waiting import PATIENCE, wait_equal

FRESH_S = 3.0 * PATIENCE  # two, and one for a machine that is busy
TURNS = 2  # answers for each row in view
SERIES = re.compile(r"/v1/policies/([^/]+)/series$")
# The names in the rows of policies that are on the screen.
ON_SCREEN = """rows => rows.filter(row => {
    const box = row.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
}).map(row => row.querySelector("a").textContent)"""
# A clock that is some milliseconds off: all that a page can read of it.
WRONG_CLOCK = """
const Right = Date, origin = performance.timeOrigin, off = %d;
Date = class extends Right {
    constructor(...given) { given.length ? super(...given) : super(Date.now()); }
    static now() { return Right.now() + off; }
};
Object.defineProperty(performance, "timeOrigin", { value: origin + off });
"""


WATCH_CONNECTION = """() => {
    window.said = [];
    const place = document.querySelector(".connection");
    const note = () => window.said.push(place.textContent);
    new MutationObserver(note).observe(place, { characterData: true, childList: true, subtree: true });
}"""


class Answers:
    """When each policy's series was answered last, and the longest that one on the screen waited."""

    def __init__(self, tab: Tab) -> None:
        self.tab, self.times = tab, dict[str, list[float]]()
        tab.page.on("response", self._note)

    def _note(self, response: Response) -> None:
        if match := SERIES.search(response.url):
            self.times.setdefault(unquote(match[1]), []).append(time.monotonic())

    def on_screen(self) -> list[str]:
        found: list[str] = self.tab.page.locator("[aria-label=Policies] tbody tr").evaluate_all(ON_SCREEN)
        return found

    def longest(self, names: list[str]) -> float:
        """Between two answers for one of ``names``, seconds, from now on until each had ``TURNS`` more."""
        self.times.clear()
        began = time.monotonic()
        self.tab.wait(lambda: all(len(self.times.get(name, ())) >= TURNS for name in names), "some answers")
        return max(
            b - a
            for name in names
            for a, b in zip([began, *self.times[name]], self.times[name], strict=False)
        )


def many(lab: Lab, number: int) -> list[str]:
    """A service with so many policies, each with a session."""
    names = [f"p{i:03}" for i in range(number)]
    lab.server()
    for name in names:
        lab.cgroup(name)
    service = start_service(lab, *(policy(lab, name) for name in names))
    client = lab.client(cgroup=names[0])
    for name in names:
        # A socket is of the cgroup in which its process was when it was made.
        procs = cgroup2_root() / lab.cgroup_path(name).lstrip("/") / "cgroup.procs"
        procs.write_text(str(client.process.pid))
        client.open(1)
    wait_equal(lambda: [p["sessions"] for p in service.get("/v1/policies")["policies"]], [1] * number)
    return names


@pytest.mark.parametrize("number", [25, 200])
def test_figures_of_many_policies(lab: Lab, browser: Chromium, number: int) -> None:
    """Those on the screen are of the last two seconds; a slow answer holds up no other."""
    names = many(lab, number)
    tab = browser.open("#/overview", failures=True)
    tab.live()
    answers = Answers(tab)
    tab.count("[aria-label=Policies] tbody tr", number)
    tab.page.locator("[aria-label=Policies] tbody tr").nth(number // 2).scroll_into_view_if_needed()
    tab.wait(lambda: names[number // 2] in answers.on_screen(), "the row is on the screen")
    shown = answers.on_screen()
    longest = answers.longest(shown)
    print(f"{number} policies, {len(shown)} on the screen: figures of at most {longest:.1f} s ago")
    assert longest <= FRESH_S

    slow, *others = answers.on_screen()
    held: list[Route] = []
    path = f"/v1/policies/{slow}/series"
    tab.page.route(f"**{path}", lambda route: route.continue_() if held else held.append(route))
    tab.wait(lambda: held, "a request that nobody answers")
    tab.requests.clear()
    assert answers.longest(others) <= FRESH_S
    assert f"GET {path}" not in tab.requests  # nothing queues up behind it
    # The others were answered: the service is there.
    tab.evaluate(WATCH_CONNECTION)
    held[0].abort()
    answers.longest([slow])
    assert tab.evaluate("window.said") == []


def test_how_much_the_overview_asks(lab: Lab, browser: Chromium) -> None:
    """What is out of view is asked for by turns, one in a second."""
    many(lab, 25)
    tab = browser.open("#/overview")
    tab.live()
    tab.page.set_viewport_size({"width": 1280, "height": 300})  # the plot has all of it
    answers = Answers(tab)
    tab.wait(lambda: answers.on_screen() == [], "no policy on the screen")
    tab.wait(tab.settled, "the answers from before")
    answers.times.clear()
    began = time.monotonic()
    tab.wait(lambda: len(answers.times) > TURNS, "some turns")  # each for another policy
    assert time.monotonic() - began > TURNS - 1


@pytest.mark.parametrize(("off_s", "zone"), [(-600, "UTC"), (600, "Asia/Kolkata")])
def test_a_browser_with_a_wrong_clock(lab: Lab, browser: Chromium, off_s: int, zone: str) -> None:
    """What is plotted is of the service's time, as the browser's time zone writes it."""
    lab.server()
    service = start_service(lab, policy(lab, "a"))
    client = lab.client(cgroup="a")
    client.open(1)
    client.begin("send", seconds=60, rate=100_000)
    wait_equal(lambda: bool(service.get("/v1/interfaces/eth0/series")["series"]), True)
    tab = browser.open("#/overview", zone=zone, script=WRONG_CLOCK % (off_s * 1000))
    tab.live()
    expect(tab.page.locator(".legend-value", has_text="bit/s").first).to_be_visible()
    box = tab.page.locator(".u-over").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 5)
    said = tab.page.locator(".legend-time")
    expect(said).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    shown = datetime.strptime(said.inner_text(), "%H:%M:%S").time()
    here = datetime.now(ZoneInfo(zone)).replace(tzinfo=None)
    late_s = (datetime.combine(here, shown) - here).total_seconds()
    late_s = (late_s + 43200) % 86400 - 43200  # over midnight
    assert abs(late_s) <= 4 * PATIENCE, f"{shown} is plotted as the last at {here}"
