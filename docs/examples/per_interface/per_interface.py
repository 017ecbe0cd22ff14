# SPDX-License-Identifier: Apache-2.0
"""``per_interface``: one subflow per interface, however many addresses it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from typing_extensions import Doc

from pm.model import LocalAddress, Pair, Want, Wanted, family_of
from pm.path_managers.base import SessionView
from pm.path_managers.remotes import reachable


class PerInterface:
    name: ClassVar[str] = "per_interface"
    summary: ClassVar[str] = "One subflow per network interface, to the first remote address of its family."

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        max_interfaces: Annotated[int, Ge(1), Le(16), Doc("Interfaces used in all.")] = 4

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Wanted:
        wanted: Wanted = {session.initial_pair: Want()}
        used = {a.ifindex for a in addresses if a.ip == session.local}
        for address in addresses:
            if address.ifindex in used or len(used) >= parameters.max_interfaces:
                continue
            for remote, port in reachable(session):
                if family_of(remote) == address.family:
                    wanted[Pair(address.ip, remote, port)] = Want(backup=address.backup)
                    used.add(address.ifindex)
                    break
        return wanted
