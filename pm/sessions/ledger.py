# SPDX-License-Identifier: Apache-2.0
"""How much every session, policy and interface has carried, with what closed subflows had.

The one place where bytes are added up. Whoever reads a subflow's figures from the kernel hands them to
``Ledger.note``, which adds what is new. The sums never fall: they are good for counters. How fresh they are
depends on the last ``note``: the comparisons with the kernel, at least one in 45 s, give one for each
subflow, and so does each reader of the API for the sessions that it sees. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pm.interfaces import UNKNOWN, Interface, Interfaces
from pm.model import Figures, LocalAddress, Subflow
from pm.sessions.session import Session
from pm.sessions.traffic import Traffic

ACCOUNTS_MAX = 1024  # interfaces come and go, and policies too: what is beyond is added up as OTHERS
ADDRESSES_MAX = 4096
OTHERS = "others"


class Account(NamedTuple):
    """Whose traffic it is: ``policy`` is None for sessions without one."""

    policy: str | None
    interface: Interface


REST = Account(OTHERS, Interface(OTHERS))


class Ledger:
    def __init__(self, interfaces: Interfaces | None = None) -> None:
        self.interfaces = interfaces or Interfaces()
        self._accounts: dict[Account, Traffic] = {}
        self._holders: dict[str, Interface] = {}  # of addresses
        self._deleted = 0
        self._merged_at = 0
        self.merged = 0
        """How often accounts were added up to make room: before, each had other sums."""

    def set_addresses(self, addresses: Sequence[LocalAddress]) -> bool:
        """The local addresses of now. Those that are gone are still known by the interface that had them.

        Returns whether an interface was deleted since the last call.
        """
        for address in sorted(addresses, key=lambda a: (a.usable, a.up)):  # the best of each last
            self._holders.pop(address.ip, None)
            self._holders[address.ip] = self.interfaces.seen(address.ifindex, address.ifname)
        while len(self._holders) > ADDRESSES_MAX:
            del self._holders[next(iter(self._holders))]
        before, self._deleted = self._deleted, self.interfaces.deleted
        return before != self._deleted

    def interface_of(self, subflow: Subflow) -> Interface:
        """The interface that has, or had, the subflow's local address; UNKNOWN if nobody knows."""
        if subflow.interface is UNKNOWN:
            subflow.interface = self._holders.get(subflow.local, UNKNOWN)
        return subflow.interface

    def move(self, subflow: Subflow) -> None:
        """A subflow that lives longer than its interface goes on where its address is now, if anywhere."""
        if subflow.interface.gone:
            subflow.interface = self._holders.get(subflow.local, subflow.interface)

    def note(self, session: Session, subflow: Subflow, figures: Figures) -> None:
        """What the kernel says of a subflow now, or said at its end."""
        before = subflow.figures
        if figures == before or not _follow(before, figures):
            return
        subflow.figures = figures
        policy = session.policy.name if session.policy else None
        session.carried.add(before, figures)
        self._account(Account(policy, self.interface_of(subflow))).add(before, figures)

    def adopt(self, session: Session, subflow: Subflow, figures: Figures) -> None:
        """A subflow older than the service: what it has carried so far counts for its session alone."""
        session.carried.add(subflow.figures, figures)
        subflow.figures = figures

    def accounts(self) -> Mapping[Account, Traffic]:
        """Since the service started, by policy and interface."""
        return self._accounts

    def by_interface(self) -> dict[Interface, Traffic]:
        """Since the service started."""
        sums: dict[Interface, Traffic] = {}
        for account, traffic in self._accounts.items():
            sums.setdefault(account.interface, Traffic()).add_all(traffic)
        return sums

    def by_policy(self) -> dict[str | None, Traffic]:
        """Since the service started; None: sessions without a policy."""
        sums: dict[str | None, Traffic] = {}
        for account, traffic in self._accounts.items():
            sums.setdefault(account.policy, Traffic()).add_all(traffic)
        return sums

    def _account(self, account: Account) -> Traffic:
        if account not in self._accounts and len(self._accounts) >= ACCOUNTS_MAX:
            self._merge()
            if len(self._accounts) >= ACCOUNTS_MAX:
                account = REST
        return self._accounts.setdefault(account, Traffic())

    def _merge(self) -> None:
        """Make room: of interfaces that are gone, what those of one name have carried is added up."""
        if self._merged_at == self.interfaces.deleted:
            return
        self._merged_at = self.interfaces.deleted
        self.merged += 1
        first: dict[str, Interface] = {}
        accounts, self._accounts = self._accounts, {}
        for account, traffic in accounts.items():
            interface = account.interface
            if interface.gone:
                interface = first.setdefault(interface.name, interface)
            self._accounts.setdefault(Account(account.policy, interface), Traffic()).add_all(traffic)


def _follow(before: Figures, after: Figures) -> bool:
    """Whether both can be of one socket: another one may have its addresses and ports by now."""
    return (
        after.bytes_acked >= before.bytes_acked
        and after.bytes_received >= before.bytes_received
        and after.retransmits >= before.retransmits
    )
