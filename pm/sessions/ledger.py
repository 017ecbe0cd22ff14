# SPDX-License-Identifier: Apache-2.0
"""How much every session, policy and interface has carried, with what closed subflows had.

The one place where bytes are added up. Whoever reads a subflow's figures from the kernel hands them to
``Ledger.note``, which adds what is new. The sums never fall: they are good for counters. How fresh they are
depends on the last ``note``: the comparisons with the kernel, at least one in 45 s, give one for each
subflow, and so does each reader of the API for the sessions that it sees. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pm.model import Figures, LocalAddress, Subflow
from pm.sessions.session import Session
from pm.sessions.traffic import Traffic

ACCOUNTS_MAX = 1024  # interfaces come and go, and policies too: what is beyond is added up as OTHERS
ADDRESSES_MAX = 4096
OTHERS = "others"


class Account(NamedTuple):
    """Whose traffic it is: ``policy`` is None for sessions without one, ``interface`` "" where unknown."""

    policy: str | None
    interface: str

    def under(self, renamed: Mapping[str, str]) -> Account:
        return self._replace(interface=renamed.get(self.interface, self.interface))


class Ledger:
    def __init__(self) -> None:
        self._accounts: dict[Account, Traffic] = {}
        self._names: dict[str, str] = {}
        self._indexes: dict[int, str] = {}
        self.on_renamed: Callable[[Mapping[str, str]], None] | None = None
        """Hears of interfaces that have other names now, by their former ones."""

    def set_addresses(self, addresses: Sequence[LocalAddress]) -> Mapping[str, str]:
        """The local addresses of now. Those that are gone are still known by the interface that had them.

        What an interface has carried follows its name. Returns the new names by the former ones.
        """
        names = {address.ifindex: address.ifname for address in addresses}
        renamed = {
            before: name
            for index, name in names.items()
            if (before := self._indexes.pop(index, name)) != name
        }
        self._indexes |= names
        while len(self._indexes) > ADDRESSES_MAX:
            del self._indexes[next(iter(self._indexes))]
        if renamed:
            self._rename(renamed)
        for address in sorted(addresses, key=lambda a: (a.usable, a.up)):  # the best of each last
            self._names.pop(address.ip, None)
            self._names[address.ip] = address.ifname
        while len(self._names) > ADDRESSES_MAX:
            del self._names[next(iter(self._names))]
        return renamed

    def _rename(self, renamed: Mapping[str, str]) -> None:
        """All at once: interfaces may have each other's names now."""
        self._names = {ip: renamed.get(name, name) for ip, name in self._names.items()}
        accounts, self._accounts = self._accounts, {}
        for account, traffic in accounts.items():
            self._accounts.setdefault(account.under(renamed), Traffic()).add_all(traffic)
        if self.on_renamed:
            self.on_renamed(renamed)

    def interface_of(self, subflow: Subflow) -> str:
        """The name of the interface that has, or had, the subflow's local address; "" if unknown."""
        if not subflow.interface:
            subflow.interface = self._names.get(subflow.local, "")
        return subflow.interface

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

    def by_interface(self) -> dict[str, Traffic]:
        """Since the service started."""
        sums: dict[str, Traffic] = {}
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
            account = Account(OTHERS, OTHERS)
        return self._accounts.setdefault(account, Traffic())


def _follow(before: Figures, after: Figures) -> bool:
    """Whether both can be of one socket: another one may have its addresses and ports by now."""
    return (
        after.bytes_acked >= before.bytes_acked
        and after.bytes_received >= before.bytes_received
        and after.retransmits >= before.retransmits
    )
