# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.lab import evidence


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the services' logs and the sockets of its labs."""
    report = yield
    if report.failed:
        report.sections += evidence.sections()
    if call.when == "teardown":
        evidence.forget()
    return report
