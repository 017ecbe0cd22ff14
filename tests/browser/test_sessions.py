# SPDX-License-Identifier: Apache-2.0
"""The list of sessions: what ``ss`` shows, filters in the address, ten thousand rows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import expect

from tests.browser.browser import Chromium, Tab, start_service
from tests.browser.test_session import refuse_second_link
from tests.lab.lab import Lab
from tests.lab.scenarios import policy
from tests.lab.waiting import wait_equal

MANY = int(os.environ.get("BROWSER_SESSIONS", "10000"))
OPEN_RATE = 1000.0
ROWS = "[role=grid] [role=row][id]"


def tokens(tab: Tab) -> list[str]:
    """The sessions whose rows exist, in order."""
    found = tab.page.locator(ROWS).evaluate_all(
        "rows => rows.map(row => [+row.ariaRowIndex, row.querySelector('code').textContent])"
    )
    return [token for _, token in sorted(found)]


def wait_for_the_kernels(lab: Lab, tab: Tab, number: int) -> None:
    """Wait until the page shows this many sessions, and they are those of ss."""

    def same() -> bool:
        shown = tokens(tab)
        return len(shown) == number and set(shown) == {f"0x{token:08x}" for token in lab.subflows("client")}

    tab.wait(same, f"the {number} sessions of ss")


def test_the_list_is_the_kernels(lab: Lab, browser: Chromium) -> None:
    """The page shows the sessions that ss shows, and follows as they come and go."""
    lab.server()
    start_service(lab, policy(lab, "a"))
    client = lab.client(cgroup="a")
    client.open(5)
    tab = browser.open("#/sessions")
    wait_for_the_kernels(lab, tab, 5)
    client.open(3)
    wait_for_the_kernels(lab, tab, 8)
    client.close(6)
    wait_for_the_kernels(lab, tab, 2)
    expect(tab.page.locator(f"{ROWS} .c-why").first).to_have_text("2 paths")
    client.close()
    expect(tab.page.get_by_text("There is no such session now.")).to_be_visible()
    client.open(1)
    tab.count(ROWS, 1)


def test_filters_are_in_the_address(lab: Lab, browser: Chromium) -> None:
    """What is typed and chosen can be sent to somebody else; one press takes the filter by cgroup away."""
    lab.server()
    service = start_service(lab, policy(lab, "a"), policy(lab, "b", "none"))
    for name, number in (("a", 3), ("b/x", 2), ("b/y", 1)):
        lab.client(cgroup=name).open(number)
    wait_equal(lambda: len(service.sessions()), 6)
    tab = browser.open("#/sessions")
    tab.count(ROWS, 6)
    tab.page.get_by_label("Policy").select_option("b")
    tab.count(ROWS, 3)
    assert tab.page.url.endswith("#/sessions?policy=b")
    tab.page.get_by_label("Search").fill("B/X")
    tab.count(ROWS, 2)
    assert "search=B%2FX" in tab.page.url
    other = browser.open(f"#{urlsplit(tab.page.url).fragment}")
    other.count(ROWS, 2)
    expect(other.page.get_by_label("Policy")).to_have_value("b")
    expect(other.page.get_by_label("Search")).to_have_value("B/X")
    (token, *_) = tokens(other)
    other.page.get_by_label("Search").fill(token[2:])
    other.count(ROWS, 1)
    other.page.get_by_label("Search").fill("no such thing")
    expect(other.page.get_by_text("There is no such session now.")).to_be_visible()
    other.go(f"#/sessions?cgroup={lab.cgroup_path('b/y')}")
    other.count(ROWS, 1)
    other.page.locator(".chip").click()
    other.count(ROWS, 6)
    other.page.get_by_label("State").select_option("created")
    other.count(ROWS, 0)


def test_what_is_missing_is_in_the_list(lab: Lab, browser: Chromium) -> None:
    """A path that the peer refuses is named with the kernel's reason."""
    lab.server()
    refuse_second_link(lab)
    start_service(lab, policy(lab, "a"))
    lab.client(cgroup="a").open(1)
    tab = browser.open("#/sessions")
    why = tab.page.locator(f"{ROWS} .c-why")
    expect(why).to_contain_text(f"{lab.address('client', 2)} → {lab.address('server', 1)}")
    expect(why).to_contain_text("ECONNREFUSED")
    tab.count(f"{ROWS} .mark.absent", 1)


def test_one_path_has_a_reason(lab: Lab, browser: Chromium) -> None:
    """The column says why a session has one path; where the list cannot, a link goes to the findings."""
    lab.server()
    start_service(
        lab,
        policy(lab, "none", "none"),
        policy(lab, "large", start={"after_bytes": "1MB"}),
        policy(lab, "late", start={"after": "1h"}),
        policy(lab, "mesh"),
        policy(lab, "one", {"ndiffports": {"subflows": 1}}),
        addresses={"include": ["eth0"]},
    )
    for name in ("none", "large", "late", "mesh", "one", "elsewhere"):
        lab.client(cgroup=name).open(1)
    tab = browser.open("#/sessions")
    tab.count(ROWS, 6)
    for name, reason in (
        ("none", "its policy wants one path: none"),
        ("large", re.compile(r"^more paths after 1\.00 MB \(\d B so far\)$")),
        ("late", "more paths after 1 h"),
        ("mesh", "no other usable IPv4 address here, and the peer announced none"),
        ("one", "one path: why?"),
        ("elsewhere", "no policy has its cgroup"),
    ):
        row = tab.page.locator(ROWS, has_text=lab.cgroup_path(name))
        expect(row.locator(".c-why")).to_have_text(reason)
    assert tab.page.locator(ROWS).count() == tab.page.locator(f"{ROWS} .c-why:not(:empty)").count()
    tab.page.get_by_role("link", name="one path: why?").click()
    expect(tab.page.locator("#why")).to_be_focused()
    expect(tab.page.locator("#why ~ .card")).to_contain_text("address_not_usable")


def test_ten_thousand(make_lab: Callable[..., Lab], make_browser: Callable[[Lab], Chromium]) -> None:
    """From the first row to the last by keys and by scrolling; few rows exist at a time, no frame is long."""
    lab = make_lab(client=1, server=1)
    browser = make_browser(lab)
    lab.server()
    service = start_service(lab, policy(lab, "a", "none"))
    client = lab.client(cgroup="a")
    client.open(MANY, OPEN_RATE, deadline_s=120)
    wait_equal(lambda: service.get("/v1/status")["sessions"], MANY, deadline_s=60)
    tab = browser.open("#/sessions")
    grid = tab.page.get_by_role("grid")
    expect(grid).to_have_attribute("aria-rowcount", str(MANY + 1))
    tab.wait(lambda: len(tokens(tab)) > 10, "the first rows")
    assert tab.page.locator(ROWS).count() < 100
    grid.focus()
    tab.page.keyboard.press("End")
    expect(grid).to_have_attribute("aria-activedescendant", f"row-{MANY - 1}")
    expect(tab.page.locator(f"#row-{MANY - 1}")).to_have_attribute("aria-rowindex", str(MANY + 1))
    everything = [s["token"] for s in service.sessions(limit=1000)]
    assert tokens(tab)[-1] == everything[-1]
    worst = tab.evaluate(SCROLL)
    print(f"longest frame while scrolling {MANY} rows: {worst:.0f} ms")
    assert tab.page.locator(ROWS).count() < 100
    tab.page.keyboard.press("Home")
    expect(tab.page.locator("#row-0 code")).to_have_text(everything[0])
    # In the middle of the table, pages that are not first are renewed, and closed sessions leave.
    grid.evaluate(f"grid => grid.scrollTop = 36 * {MANY // 2}")
    tab.wait(lambda: everything[MANY // 2] in tokens(tab), "a row of the middle")
    client.close(MANY // 2 + 1)
    tab.wait(lambda: everything[MANY // 2] not in tokens(tab), "a row that has gone")
    expect(grid).to_have_attribute("aria-rowcount", str(MANY - MANY // 2))
    rest = everything[MANY // 2 + 1 :]
    tab.wait(lambda: tokens(tab) and set(tokens(tab)) <= set(rest), "only rows of living sessions")
    wait_equal(lambda: service.get("/v1/status")["sessions"], len(rest), deadline_s=60)
    tab.page.get_by_label("Search").fill(rest[-1])
    tab.count(ROWS, 1)


# From the top to the bottom in a hundred steps; the longest time between two frames, in milliseconds.
SCROLL = """async () => {
  const grid = document.querySelector("[role=grid]");
  let worst = 0, last = performance.now();
  for (let step = 0; step <= 100; step += 1) {
    grid.scrollTop = (grid.scrollHeight - grid.clientHeight) * step / 100;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    worst = Math.max(worst, now - last);
    last = now;
  }
  return worst;
}"""


def test_a_query_that_the_service_refuses(lab: Lab, browser: Chromium) -> None:
    """A filter that does not exist is said, and another one helps."""
    lab.server()
    start_service(lab, policy(lab, "a"))
    lab.client(cgroup="a").open(1)
    tab = browser.open("#/sessions?state=nonsense", failures=True)
    expect(tab.page.get_by_role("alert")).to_contain_text("must be one of created, established")
    tab.page.get_by_label("State").select_option("established")
    tab.count(ROWS, 1)
