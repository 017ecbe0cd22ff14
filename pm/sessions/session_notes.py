# SPDX-License-Identifier: Apache-2.0
"""What the next start must know of sessions and addresses and the kernel does not tell.

The values are JSON. What an earlier run wrote is not trusted: an entry of the wrong form is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from pm.sessions.address_ids import MAX_ID
from pm.sessions.session import Session

DENIED_MAX = 16384  # sessions noted; the newest

# Token, local address and port, remote address and port: the kernel reuses tokens.
SessionName = tuple[int, str, int, str, int]


def name_of(session: Session) -> SessionName:
    """A session by its token and the 4-tuple of its initial subflow."""
    return session.token, session.local, session.local_port, session.remote, session.remote_port


def denied_sessions(sessions: Iterable[Session]) -> list[SessionName]:
    """Those whose peer refuses joins to its initial address (the C flag): sock_diag does not show it."""
    return [name_of(session) for session in sessions if session.deny_join_id0][-DENIED_MAX:]


def read_denied(found: Any) -> Collection[SessionName]:
    """What ``denied_sessions`` returned, from JSON."""
    entries = found if isinstance(found, list) else []
    return frozenset(
        (entry[0], entry[1], entry[2], entry[3], entry[4])
        for entry in entries
        if isinstance(entry, list) and list(map(type, entry)) == [int, str, int, str, int]
    )


def read_address_ids(found: Any) -> dict[str, int]:
    """Address ids by address, from JSON; each id once."""
    entries = found if isinstance(found, dict) else {}
    by_id = {i: ip for ip, i in entries.items() if type(i) is int and 1 <= i <= MAX_ID}
    return {ip: i for i, ip in by_id.items()}


def read_addresses(found: Any) -> list[str]:
    """Addresses seen up, from JSON."""
    return [ip for ip in found if isinstance(ip, str)] if isinstance(found, list) else []
