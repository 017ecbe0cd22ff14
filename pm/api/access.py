# SPDX-License-Identifier: Apache-2.0
"""The token, browsers that logged in with it, addresses that tried tokens: in memory only, bounded.

A cookie holds a random name, which says nothing by itself; here is only its digest.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

LOGINS_MAX = 256
IDLE_S = 12 * 3600.0
"""A login that is not used for so long ends."""
LASTS_S = 7 * 24 * 3600.0
"""However much it is used."""
FAILURES_MAX = 5
"""Wrong tokens of one address within ``FAILURES_S``; then it waits."""
FAILURES_S = 60.0
ADDRESSES_MAX = 1024
KNOWN_S = 24 * 3600.0
"""So long after a right token came from an address, no wrong one from there makes it wait."""


class Login(NamedTuple):
    begun: float
    used: float


class Logins:
    """Those that are open."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._logins: OrderedDict[bytes, Login] = OrderedDict()
        """The one that was not used for the longest first."""

    def __len__(self) -> int:
        return len(self._logins)

    def begin(self) -> str:
        """A new one; its name is for the cookie. Where there are too many, the oldest in use makes room."""
        name, now = secrets.token_urlsafe(32), self._now()
        if len(self._logins) >= LOGINS_MAX:
            self._logins.popitem(last=False)
        self._logins[_digest(name)] = Login(now, now)
        return name

    def use(self, name: str) -> bool:
        """Whether it is open; it is in use then."""
        digest, now = _digest(name), self._now()
        login = self._logins.get(digest)
        if login is None:
            return False
        if now - login.used >= IDLE_S or now - login.begun >= LASTS_S:
            del self._logins[digest]
            return False
        self._logins[digest] = Login(login.begun, now)
        self._logins.move_to_end(digest)
        return True

    def end(self, name: str) -> None:
        self._logins.pop(_digest(name), None)

    def end_all(self) -> None:
        self._logins.clear()


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


class Trials:
    """Tokens by the address that they came from: how often wrong ones, and when a right one.

    Whoever has the token need not fear whoever tries out others beside it: their address does not wait.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._right: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before it may try again, 0 for not at all."""
        site, now = _site(address), self._now()
        if (right := self._right.get(site)) is not None and now - right < KNOWN_S:
            return 0.0
        times = self._wrong.get(site)
        if times is None or len(times) < FAILURES_MAX:
            return 0.0
        return max(0.0, times[0] + FAILURES_S - now)

    def note(self, address: str, *, right: bool) -> None:
        site = _site(address)
        if right:
            self._right[site] = self._now()
            _bound(self._right, site)
        else:
            self._wrong.setdefault(site, deque(maxlen=FAILURES_MAX)).append(self._now())
            _bound(self._wrong, site)


def _bound(some: OrderedDict[str, Any], newest: str) -> None:
    some.move_to_end(newest)
    if len(some) > ADDRESSES_MAX:
        some.popitem(last=False)


def _site(address: str) -> str:
    """Of IPv6 the /64: one host has as many addresses as it likes."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and not ip.ipv4_mapped:
        return f"{int(ip) >> 64:x}::/64"
    return str(ip)


class Access:
    """The token, and the browsers that have logged in with it. Without a token nobody may ask over TCP."""

    def __init__(self, token: bytes | None = None) -> None:
        self._token = token
        self.logins = Logins()
        self.trials = Trials()

    def admits(self, token: str, address: str) -> bool:
        """Whether it is right; ``address`` has tried it then. It is for the caller to make it wait."""
        right = self.is_token(token)
        self.trials.note(address, right=right)
        return right

    def is_token(self, text: str) -> bool:
        given = text.strip().encode(errors="surrogateescape")  # a header need not be UTF-8
        return bool(self._token) and hmac.compare_digest(given, self._token or b"")

    def change_token(self, token: bytes) -> bool:
        """Whether it is another one; then all logins with the old one end."""
        if token == self._token:
            return False
        self._token = token
        self.logins.end_all()
        return True
