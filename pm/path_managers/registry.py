# SPDX-License-Identifier: GPL-2.0-only
"""Finds the installed path managers by their entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from pm.errors import PmError
from pm.path_managers.base import PathManager

GROUP = "mptcp_pm.path_managers"


@cache
def registry() -> dict[str, type[PathManager]]:
    """Every installed path manager by name. Raises PmError if one of them cannot be loaded."""
    found: dict[str, type[PathManager]] = {}
    for point in entry_points(group=GROUP):
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as e:
            raise PmError(
                f"path manager {point.name!r} cannot be loaded from {point.value}: {e}",
                "reinstall or remove the package that provides it",
            ) from e
    return found
