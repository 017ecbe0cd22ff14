# SPDX-License-Identifier: Apache-2.0
"""One browser driver for all tests; each test, or module, has a lab and a browser of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Playwright, sync_playwright

from tests.browser.browser import Chromium, chromium
from tests.lab.lab import Lab
from tests.net.conftest import lab, make_lab, no_leftovers, programs

__all__ = ["lab", "make_lab", "no_leftovers", "programs"]


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture
def make_browser(make_lab: Callable[..., Lab], playwright: Playwright) -> Iterator[Callable[[Lab], Chromium]]:
    """``make_browser(lab)``: a browser beside the lab's client. No console may have complained at the end."""
    with contextlib.ExitStack() as stack:

        def make(lab: Lab) -> Chromium:
            found = stack.enter_context(chromium(playwright, lab))
            made.append(found)
            return found

        made: list[Chromium] = []
        yield make
        for browser in made:
            browser.end_of_test()


@pytest.fixture
def browser(lab: Lab, make_browser: Callable[[Lab], Chromium]) -> Chromium:
    """A browser beside the client of ``lab``."""
    return make_browser(lab)
