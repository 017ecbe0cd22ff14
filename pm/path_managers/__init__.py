# SPDX-License-Identifier: GPL-2.0-only
"""Path managers: pure functions from a session and the local addresses to the subflows wanted.

Every path manager, ours or a third party's, is an entry point of the group
``mptcp_pm.path_managers`` naming a class like those in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from pm.errors import PmError
from pm.model import LocalAddress, Session, Wanted

GROUP = "mptcp_pm.path_managers"


class PathManager(Protocol):
    """What a path manager must have. Instances hold nothing: all state is in the arguments."""

    name: ClassVar[str]
    summary: ClassVar[str]  # one sentence for the configuration reference
    Parameters: ClassVar[type]  # frozen dataclass, fields annotated like those of pm.config.model

    @staticmethod
    def wanted(session: Session, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        """The subflows that should exist now, the initial one included.

        ``addresses`` are the usable local addresses of the session's family or families. Pure: same
        arguments, same answer. Level-triggered: called again after anything changed.
        """


@cache
def registry() -> dict[str, type[PathManager]]:
    """Every installed path manager by name. Raises PmError for one that cannot be loaded."""
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
