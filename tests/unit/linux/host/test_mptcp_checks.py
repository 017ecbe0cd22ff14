# SPDX-License-Identifier: Apache-2.0
"""Facts about MPTCP in kernels of other versions than this one's; the rest is in tests/net/test_doctor.py."""

from __future__ import annotations

import pytest

from pm.linux.host.mptcp_checks import LIMITS, kernel_limits


@pytest.mark.parametrize(
    ("release", "known"),
    [
        ("6.12.117", ["C flag", "laminar", "at most 8 subflows"]),
        ("6.17.0-rc1", ["laminar", "at most 8 subflows"]),
        ("6.18.44", ["at most 8 subflows"]),
        ("7.2.0", []),
        ("10.0", []),
        ("unknown", ["C flag", "laminar", "at most 8 subflows"]),
    ],
)
def test_limits_are_those_of_the_version(release: str, known: list[str]) -> None:
    """Versions are compared as numbers; nothing of it is required."""
    check = kernel_limits(release)
    assert (check.ok, check.required) == (not known, False)
    assert [word for word in ("C flag", "laminar", "at most 8 subflows") if word in check.found] == known


def test_limits_are_in_the_order_of_versions() -> None:
    """The oldest first."""
    versions = [before for before, _ in LIMITS]
    assert versions == sorted(versions)
