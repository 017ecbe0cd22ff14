# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the service is on top of the page; it comes back by itself; the login."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter

from playwright.sync_api import expect

from tests.browser.browser import TOKEN, Chromium, start_service
from tests.lab.lab import Lab
from tests.lab.scenarios import policy, wait_reported
from tests.lab.service import Service, command

ROWS = "[role=grid] [role=row][id]"


def test_a_bad_file(lab: Lab, browser: Chromium) -> None:
    """A banner names file, line and mistake until the file is good again; a reload by hand is asked about."""
    service = start_service(lab, policy(lab, "a"))
    tab = browser.open("#/configuration", failures=True)
    expect(tab.page.locator("#in-force ~ .card")).to_contain_text(lab.cgroup_path("a"))
    good = service.config_path.read_text()
    service.config_path.write_text(good.replace("fullmesh", "fulmesh"))
    banner = tab.page.locator(".banners .notice.bad")
    tab.page.get_by_role("button", name="Reload").click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog.get_by_role("alert").first).to_contain_text("fulmesh")
    dialog.get_by_role("button", name="Reload").click()
    expect(banner).to_contain_text("The configuration file is bad")
    expect(banner).to_contain_text(str(service.config_path))
    dialog.get_by_role("button", name="Cancel").click()
    expect(tab.page.locator("#problems ~ .problems")).to_contain_text("fulmesh")
    service.config_path.write_text(good)
    tab.page.get_by_role("button", name="Reload").click()
    expect(dialog).to_contain_text("No session would be changed")
    dialog.get_by_role("button", name="Reload").click()
    expect(banner).to_have_count(0)


def test_what_others_changed(lab: Lab, browser: Chromium) -> None:
    """While the service is not ready, its reasons are on the page."""
    service = start_service(lab, policy(lab, "a"))
    tab = browser.open("#/doctor")
    tab.live()
    tab.count(".banners .notice.bad", 0)
    lab.sysctl("client", net__mptcp__enabled=0)
    tab.wait(lambda: not service.get("/v1/status")["ready"], "a service that is not ready")
    (reason,) = service.get("/v1/status")["reasons"]
    expect(tab.page.locator(".banners .notice.bad", has_text=reason)).to_be_visible(timeout=30_000)


def test_a_restart_of_the_service(lab: Lab, browser: Chromium) -> None:
    """Each view says once that nobody answers, and shows what the new process has without a hand on it."""
    lab.server()
    service = start_service(lab, policy(lab, "a"))
    client = lab.client(cgroup="a")
    client.open(2)
    sessions = wait_reported(service, 2, sessions=2)
    # The oldest connection ends first.
    gone, stays = (s["token"] for s in sorted(sessions, key=lambda s: s["created_at"]))
    places = {
        "#/overview": "[aria-label=Policies] tbody tr:has-text('a')",
        "#/sessions": "[role=grid][aria-rowcount='3']",
        f"#/session/{stays}": ".picture .path.good",
        f"#/session/{gone}": "main .notice:has-text('This session has ended')",
        "#/addresses": "[aria-label=Addresses] tbody tr",
        "#/configuration": "#in-force ~ .card:has-text('a')",
        "#/doctor": "[aria-label=Checks] tbody tr",
    }
    tabs = {where: browser.open(where, header=True, failures=True) for where in places}
    for tab in tabs.values():
        tab.live()
        expect(tab.page.locator("main").get_by_text("Loading …")).to_have_count(0)
    pid = service.get("/v1/status")["pid"]
    service.kill()
    for tab in tabs.values():
        tab.count(".banners .notice.bad", 1)
        expect(tab.page.locator(".banners .notice.bad")).to_contain_text("The service does not answer")
        expect(tab.page.get_by_text("does not answer")).to_have_count(1)
        expect(tab.page.locator(".connection")).to_contain_text("No connection")
    client.close(1)
    client.open(1)
    service.start()
    assert service.get("/v1/status")["pid"] != pid
    for where, tab in tabs.items():
        expect(tab.page.locator(".banners .notice.bad")).to_have_count(0, timeout=40_000)
        tab.live()
        expect(tab.page.locator(places[where]).first).to_be_visible()
    tab = tabs["#/doctor"]
    expect(tab.page.locator(".facts-grid").first).to_contain_text(str(service.get("/v1/status")["pid"]))


def test_a_page_that_opens_while_the_service_is_away(lab: Lab, browser: Chromium) -> None:
    """A view without data waits below one banner, and has its data once the service is there."""
    lab.server()
    service = start_service(lab, policy(lab, "a"))
    lab.client(cgroup="a").open(1)
    tab = browser.open("#/doctor", header=True, failures=True)
    tab.live()
    service.kill()
    tab.count(".banners .notice.bad", 1)
    for name in ("Overview", "Sessions", "Addresses", "Configuration"):
        tab.page.get_by_role("link", name=name).first.click()
        tab.heading(name)
        tab.count(".notice.bad", 1)
    service.start()
    expect(tab.page.locator(".notice.bad")).to_have_count(0, timeout=40_000)
    expect(tab.page.locator("#in-force ~ .card")).to_contain_text(lab.cgroup_path("a"))


def test_a_stream_that_breaks(lab: Lab, browser: Chromium) -> None:
    """The stream of events is opened again, and events are followed as before."""
    lab.server()
    start_service(lab, policy(lab, "a"))
    tab = browser.open("#/overview", failures=True)
    tab.live()
    tab.requests.clear()
    lab.run("client", "ss", "--kill", "dst", "127.0.0.1", "dport", "=", "8642")
    tab.wait(lambda: "GET /v1/events" in tab.requests, "another stream")
    tab.live()
    lab.client(cgroup="a").open(1)
    expect(tab.page.locator("#latest ~ .log li").filter(has_text="session established").first).to_be_visible()


def test_how_often_the_page_asks(lab: Lab, browser: Chromium) -> None:
    """The same is asked for at most once in a second, also while many sessions come."""
    lab.server()
    start_service(lab, policy(lab, "a"))
    tab = browser.open("#/sessions")
    tab.live()
    tab.wait(tab.settled, "the first answers")
    tab.requests.clear()
    began = time.monotonic()
    lab.client(cgroup="a").open(200, rate=40)
    tab.count("[aria-rowcount='201']", 1)
    passed = time.monotonic() - began
    (path, number), *_ = Counter(tab.requests).most_common()
    assert number <= passed + 2, f"{path} {number} times in {passed:.1f} s"


def test_login(lab: Lab, browser: Chromium) -> None:
    """A wrong token is refused in words; the right one opens the page, and no script can read it."""
    start_service(lab, policy(lab, "a"))
    tab = browser.open("#/addresses", login=False, failures=True)
    tab.heading("Log in")
    field = tab.page.get_by_label("Token")
    expect(field).to_be_focused()
    field.fill("a-token-that-is-quite-wrong")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("not valid")
    field.fill(TOKEN)
    tab.page.keyboard.press("Enter")
    tab.heading("Addresses")
    tab.live()
    expect(tab.page.locator("tbody tr", has_text=lab.address("client", 1))).to_contain_text("used")
    assert TOKEN not in tab.evaluate("document.cookie + JSON.stringify(localStorage) + location.href")
    tab.page.reload()
    tab.heading("Addresses")
    tab.page.get_by_role("button", name="Log out").click()
    tab.heading("Log in")
    tab.page.reload()
    tab.heading("Log in")


def test_a_new_token_ends_the_login(lab: Lab, browser: Chromium) -> None:
    """Whoever is logged in when the service gets another token is asked again, and goes on where he was."""
    start_service(lab, policy(lab, "a"))
    tab = browser.open("#/overview", failures=True)
    tab.live()
    token = "another-token-that-is-long-enough"
    (lab.directory / "token").write_text(token)
    expect(tab.page.locator("h1")).to_have_text("Log in", timeout=40_000)
    tab.page.get_by_label("Token").fill(token)
    tab.page.keyboard.press("Enter")
    tab.heading("Overview")
    tab.live()


def test_mptcp_pm_web(lab: Lab, browser: Chromium) -> None:
    """Its address opens the page once, without a token, also over a restart of the service; changes work."""
    lab.server()
    service = start_service(lab, policy(lab, "a"))
    lab.client(cgroup="a").open(2)
    process, address = run_web(lab, service)
    tab = browser.open(address, login=False, failures=True)
    tab.heading("Overview")
    tab.live()
    assert "code" not in tab.page.url
    tab.page.get_by_role("link", name="Sessions", exact=True).click()
    tab.count(ROWS, 2)
    service.kill()
    expect(tab.page.locator(".banners")).to_contain_text("The service does not answer")
    service.start()
    expect(tab.page.locator(".banners .notice.bad")).to_have_count(0, timeout=40_000)
    tab.count(ROWS, 2)
    tab.page.locator(f"{ROWS} a").first.click()
    tab.page.get_by_role("button", name=re.compile("^Close")).last.click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Close the subflow").click()
    tab.count("[aria-label=Subflows] tbody tr", 1)
    other = browser.open(address, login=False, failures=True)
    other.heading("Log in")
    expect(other.page.get_by_role("alert")).to_contain_text("The code of this address is not valid any more")
    process.terminate()
    process.wait()
    _, address = run_web(lab, service)
    other.page.goto(address)  # only the fragment is another one
    other.heading("Overview")
    other.live()
    assert "code" not in other.page.url


def run_web(lab: Lab, service: Service) -> tuple[subprocess.Popen[str], str]:
    """``mptcp-pm web``, always on the same port, and the address that it prints."""
    arguments = ["web", "--no-browser", "--port", "8700", "--socket", str(service.socket_path)]
    process = lab.popen([*command(), *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    (address,) = re.findall(r"http://127\.0\.0\.1:8700/#code=\S+", process.stdout.readline())
    return process, address
