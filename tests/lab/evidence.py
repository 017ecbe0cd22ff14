# SPDX-License-Identifier: Apache-2.0
"""What a failed test shows of its labs: the logs of the services, the sockets of each namespace.

A lab says by ``begin`` and ``end`` when it is in use; the hook in tests/conftest.py asks for ``sections``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.lab.netns import run_inside

Section = tuple[str, str]
"""Title and text."""
Look = Callable[[], list[Section]]
LOG_LINES = 200

_in_use: list[Look] = []
_kept: list[Section] = []


def begin(look: Look) -> None:
    """A lab is in use: ``look()`` gives what a failed test shows of it."""
    _in_use.append(look)


def end(look: Look, error: BaseException | None) -> None:
    """The lab goes now. With an error, what it shows is kept: the hook comes too late to ask for it."""
    _in_use.remove(look)
    if error is not None:
        _kept.extend(look())


def sections() -> list[Section]:
    """What the labs showed that an error ended within this test, and what those in use show now."""
    return _kept + [section for look in _in_use for section in look()]


def forget() -> None:
    """The test is over: what was kept is not shown by another one."""
    _kept.clear()


def sockets(netns: str) -> Section:
    """The TCP sockets of a namespace, or why they cannot be shown."""
    try:
        text = run_inside(netns, "ss", "-tnaiO")
    except (AssertionError, OSError) as e:
        text = str(e)
    return f"ss in {netns}", text


def log(title: str, path: Path) -> Section:
    """The last lines of a service's log, or why they cannot be shown."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as e:
        return title, str(e)
    return f"{title} (last {LOG_LINES} lines)", "\n".join(lines[-LOG_LINES:])
