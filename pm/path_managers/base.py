# SPDX-License-Identifier: Apache-2.0
"""The interface of path managers: a class with a name, parameters and the function ``wanted``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Protocol

from pm.model import LocalAddress, Origin, Pair, RemoteAddress, Role, SubflowState, Wanted


class SubflowView(Protocol):
    """A subflow as a path manager sees it: read-only. The fields are those of ``pm.model.Subflow``.

    ``rtt_us`` is None for unknown, and always where the path manager does not follow it.
    """

    @property
    def pair(self) -> Pair: ...
    @property
    def local(self) -> str: ...
    @property
    def remote(self) -> str: ...
    @property
    def remote_port(self) -> int: ...
    @property
    def state(self) -> SubflowState: ...
    @property
    def working(self) -> bool: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def backup(self) -> bool: ...
    @property
    def peer_backup(self) -> bool: ...
    @property
    def rtt_us(self) -> int | None: ...


class SessionView(Protocol):
    """A session as a path manager sees it: read-only.

    ``local``, ``remote`` and ``remote_port`` are those of the initial subflow; ``remotes`` are the
    addresses that the peer announced. ``deny_join_id0`` means that the peer refuses joins to its
    initial address (RFC 8684, section 3.1), ``initial_removed`` that it withdrew it. ``socket_family``
    is 4 or 6; an IPv6 socket can have IPv4 subflows too.

    ``local_ifindex`` is the interface of ``local`` as last known, whatever the configured rules say, 0
    for unknown; ``local_lost`` means that ``local`` was there and is gone or down. ``failing`` has the
    pairs that failed since they last worked: they are tried again, more and more rarely. ``unroutable`` has
    the pairs over which no packet leaves as it should.
    """

    @property
    def role(self) -> Role: ...
    @property
    def socket_family(self) -> int: ...
    @property
    def local(self) -> str: ...
    @property
    def remote(self) -> str: ...
    @property
    def remote_port(self) -> int: ...
    @property
    def initial_pair(self) -> Pair: ...
    @property
    def remotes(self) -> tuple[RemoteAddress, ...]: ...
    @property
    def subflows(self) -> Sequence[SubflowView]: ...
    @property
    def deny_join_id0(self) -> bool: ...
    @property
    def initial_removed(self) -> bool: ...
    @property
    def local_ifindex(self) -> int: ...
    @property
    def local_lost(self) -> bool: ...
    @property
    def failing(self) -> Collection[Pair]: ...
    @property
    def unroutable(self) -> Collection[Pair]: ...


class PathManager(Protocol):
    """What a path manager must have. It is never instantiated: all state is in the arguments.

    One with a class attribute ``follows_rtt = True`` sees round-trip times, and is asked again when one has
    changed by more than a quarter.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one sentence for the configuration reference
    Parameters: ClassVar[type]  # a frozen dataclass; fields are annotated like those of pm.policies.model

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Any) -> Wanted:
        """The subflows that should exist now, including the initial one.

        ``addresses`` are the usable local addresses of the session's family or families. The function
        is pure: the same arguments give the same answer. It is level-triggered: it is called again
        after anything has changed. A pair that exists may stay; it is opened only if the peer can be
        reached there (``pm.path_managers.remotes.reachable``), whatever is wanted.
        """


def follows_rtt(path_manager: type[PathManager]) -> bool:
    """Whether its answers depend on round-trip times."""
    return bool(getattr(path_manager, "follows_rtt", False))
