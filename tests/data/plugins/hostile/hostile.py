# SPDX-License-Identifier: Apache-2.0
"""A path manager that does what its parameter says: everything that a third party can do wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from typing_extensions import Doc

from pm.model import LocalAddress, Pair, Want
from pm.path_managers.base import SessionView
from pm.policies.model import InterfaceGlob


class Nonsense:
    name: ClassVar[str] = "nonsense"
    summary: ClassVar[str] = "Wrong in the way that its parameter names."

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        kind: Annotated[str, Doc("What to do wrong.")]
        never: Annotated[tuple[InterfaceGlob, ...], Doc("A list, as in the package's own models.")] = ()

    @staticmethod
    def wanted(session: SessionView, addresses: Sequence[LocalAddress], parameters: Parameters) -> Any:
        local = next(a.ip for a in addresses if a.ip != session.local)
        remote, port = session.remote, session.remote_port
        match parameters.kind:
            case "name":
                return {Pair(local, "example.com", port): Want()}
            case "port":
                return {Pair(local, remote, 99999999): Want()}
            case "port_text":
                return {Pair(local, remote, "5000"): Want()}  # type: ignore[arg-type]
            case "family":
                return {Pair(local, "fd00::1", port): Want()}
            case "elsewhere":
                return {Pair("192.0.2.1", remote, port): Want()}
            case "zero":
                return {session.initial_pair: Want(0)}
            case "million":
                return {session.initial_pair: Want(), Pair(local, remote, port): Want(1_000_000)}
            case "clears":
                session.subflows.clear()  # type: ignore[attr-defined]
            case "writes":
                session.remote = "192.0.2.1"  # type: ignore[misc]
            case "pops":
                addresses.pop()  # type: ignore[attr-defined]
            case "exit":
                sys.exit("good bye")
            case "slow":
                time.sleep(0.05)
            case "endless":
                while True:
                    pass
            case "stubborn":
                while True:
                    try:
                        while True:
                            pass
                    except BaseException:
                        continue
            case _:
                raise RuntimeError(parameters.kind)
        return {session.initial_pair: Want()}
