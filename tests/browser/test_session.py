# SPDX-License-Identifier: Apache-2.0
"""One session: its subflows as ``ss`` has them, why others are missing, and what can be done by hand."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.browser import Chromium, Tab, pairs, pairs_of_kernel, start_service
from tests.lab.firewall import RESET
from tests.lab.lab import Lab
from tests.lab.scenarios import policy, wait_reported
from tests.lab.service import Service
from tests.lab.waiting import wait_for

LINES = ".picture .path"


def refuse_second_link(lab: Lab) -> None:
    """The server resets what comes from the client's second address."""
    words = ("-A", "INPUT", "-p", "tcp", "-s", lab.address("client", 2), *RESET)
    lab.run("server", "iptables", "-w", *words)


def open_session(lab: Lab, browser: Chromium, subflows: int = 2, **top: object) -> tuple[Tab, Service, str]:
    """A session of a fullmesh policy, in view."""
    lab.server()
    service = start_service(lab, policy(lab, "a"), **top)
    lab.client(cgroup="a").open(1)
    (session,) = wait_reported(service, subflows)
    token = session["token"]
    tab = browser.open(f"#/session/{token}", failures=True)
    tab.wait(lambda: len(pairs(tab)) == subflows, f"{subflows} subflows")
    return tab, service, token


def test_subflows_are_the_kernels(lab: Lab, browser: Chromium) -> None:
    """A subflow that comes or goes is on the page, in the table and in the picture, as it is in ss."""
    tab, _, token = open_session(lab, browser)
    assert pairs(tab) == pairs_of_kernel(lab, token)
    lab.set_link("client", 2, up=False)
    tab.wait(lambda: pairs(tab) == pairs_of_kernel(lab, token) and len(pairs(tab)) == 1, "the one of ss")
    tab.count(f"{LINES}.good", 1)
    lab.set_link("client", 2, up=True)
    tab.wait(lambda: pairs(tab) == pairs_of_kernel(lab, token) and len(pairs(tab)) == 2, "the two of ss")
    tab.count(f"{LINES}.good", 2)
    ended = tab.page.get_by_role("table", name="Subflows that have ended").locator("tbody tr")
    expect(ended).to_have_count(1)
    expect(ended).to_contain_text(lab.address("client", 2))
    history = tab.page.locator("#history ~ .log li", has_text="subflow established")
    expect(history.first).to_be_visible()
    label = tab.page.locator(".picture svg").get_attribute("aria-label")
    assert f"eth1 {lab.address('client', 2)} to {lab.address('server', 1)}: established" in str(label)


def test_how_soon_a_subflow_appears(lab: Lab, browser: Chromium) -> None:
    """The event brings it: the next poll is not waited for, and at most one starts in a second."""
    tab, service, token = open_session(lab, browser)
    tab.live()
    tab.evaluate(WATCH)
    third = lab.address("client", 2).rsplit(".", 1)[0] + ".77"
    lab.add_address("client", 2, third)
    service.post(f"/v1/sessions/{token}/subflows", {"local": third})
    tab.wait(lambda: len(pairs(tab)) == 3, "the third subflow")
    told, shown = tab.evaluate("[window.told, window.shown]")
    polls = [line for line in tab.requests if line == f"GET /v1/sessions/{token}"]
    print(f"from the event to the row: {shown - told:.0f} ms, {len(polls)} polls")
    assert told <= shown


# When the first event of a new subflow came, and when the third row did.
WATCH = """async () => {
  const rows = document.querySelector("[aria-label=Subflows] tbody");
  new MutationObserver(() => {
    if (rows.rows.length === 3) window.shown ??= performance.now();
  }).observe(rows, { childList: true });
  const reader = (await fetch("v1/events?type=subflow")).body.getReader();
  await reader.read(); // from here on nothing is missed
  reader.read().then(() => (window.told = performance.now()));
}"""


def test_why_a_path_is_missing(lab: Lab, browser: Chromium) -> None:
    """The finding of the API, its evidence and its command are there, and the picture has a dotted line."""
    refuse_second_link(lab)
    tab, _, _ = open_session(lab, browser, subflows=1)
    why = tab.page.locator("section", has=tab.page.get_by_role("heading", name="What is missing, and why"))
    expect(why).to_contain_text("connection_refused")
    expect(why).to_contain_text(f"{lab.address('client', 2)} → {lab.address('server', 1)}:5000")
    expect(why.locator("pre").first).to_be_visible()
    tab.count(f"{LINES}.absent", 1)


def test_actions_are_asked_about(lab: Lab, browser: Chromium) -> None:
    """Backup, close, open: each only after a question; the kernel has what was asked for."""
    tab, _, token = open_session(lab, browser)
    second = lab.address("client", 2)
    row = tab.page.locator("[aria-label=Subflows] tbody tr", has_text=second)

    row.get_by_role("button", name=re.compile("^Backup")).click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text(second)
    dialog.get_by_role("button", name="Cancel").click()
    tab.count("dialog", 0)
    assert not [f for f in lab.subflows("client")[int(token, 16)] if f.backup]

    row.get_by_role("button", name=re.compile("^Backup")).click()
    dialog.get_by_role("button", name="Make it a backup").click()
    expect(row).to_contain_text("backup")
    assert [f.local for f in lab.subflows("client")[int(token, 16)] if f.backup] == [second]
    tab.count(f"{LINES}.backup", 1)

    row.get_by_role("button", name=re.compile("^Close")).click()
    dialog.get_by_role("button", name="Close the subflow").click()
    tab.wait(lambda: len(pairs(tab)) == 1, "one subflow")
    assert pairs(tab) == pairs_of_kernel(lab, token)

    tab.page.get_by_role("button", name="Open a subflow").click()
    dialog.get_by_label("From").select_option(second)
    dialog.get_by_role("button", name="Open it").click()
    tab.wait(lambda: len(pairs(tab)) == 2, "two subflows")
    assert pairs(tab) == pairs_of_kernel(lab, token)


def test_what_the_kernel_refuses_is_said(lab: Lab, browser: Chromium) -> None:
    """The dialog stays, with the kernel's reason."""
    refuse_second_link(lab)
    tab, _, _ = open_session(lab, browser, subflows=1)
    tab.page.get_by_role("button", name="Open a subflow").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_label("From").select_option(lab.address("client", 2))
    dialog.get_by_role("button", name="Open it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("was not established")
    dialog.get_by_role("button", name="Cancel").click()
    tab.count("dialog", 0)


def test_a_session_that_ends(lab: Lab, browser: Chromium) -> None:
    """What was known of it stays, and the page says that it has ended."""
    lab.server()
    service = start_service(lab, policy(lab, "a"))
    client = lab.client(cgroup="a")
    client.open(1)
    (session,) = wait_for(service.sessions, "a session")
    tab = browser.open(f"#/session/{session['token']}", failures=True)
    tab.wait(lambda: len(pairs(tab)) == 2, "two subflows")
    client.close()
    expect(tab.page.get_by_text("This session has ended")).to_be_visible()
    assert len(pairs(tab)) == 2
    tab.count("button:text-is('Close')", 0)
