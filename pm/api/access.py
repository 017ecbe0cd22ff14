# SPDX-License-Identifier: Apache-2.0
"""The token, browsers that logged in with it, addresses that tried a wrong one: in memory only, bounded.

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
from typing import NamedTuple

LOGINS_MAX = 256
IDLE_S = 12 * 3600.0
"""A login that is not used for so long ends."""
LASTS_S = 7 * 24 * 3600.0
"""However much it is used."""
FAILURES_MAX = 5
"""Wrong tokens of one address within ``FAILURES_S``; then it waits."""
FAILURES_S = 60.0
ADDRESSES_MAX = 1024


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


class Failures:
    """Wrong tokens by the address that they came from."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before it may try again, 0 for not at all."""
        times = self._times.get(_site(address))
        if times is None or len(times) < FAILURES_MAX:
            return 0.0
        return max(0.0, times[0] + FAILURES_S - self._now())

    def add(self, address: str) -> None:
        site = _site(address)
        self._times.setdefault(site, deque(maxlen=FAILURES_MAX)).append(self._now())
        self._times.move_to_end(site)
        if len(self._times) > ADDRESSES_MAX:
            self._times.popitem(last=False)


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
        self.failures = Failures()

    def admits(self, token: str) -> bool:
        try:
            given = token.strip().encode(errors="surrogateescape")  # a header need not be UTF-8
        except UnicodeEncodeError:  # nor is everything text that JSON can write
            return False
        return self._token is not None and hmac.compare_digest(given, self._token)

    def change_token(self, token: bytes) -> bool:
        """Whether it is another one; then all logins with the old one end."""
        if token == self._token:
            return False
        self._token = token
        self.logins.end_all()
        return True
