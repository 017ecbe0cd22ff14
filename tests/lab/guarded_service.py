# SPDX-License-Identifier: Apache-2.0
"""The command ``mptcp-pm``, in which code of pm/ that uses a file in the event loop's thread raises.

Sockets are not guarded: commands to the kernel are synchronous on purpose (decision 5). Nor is the
question for a cgroup's path by its id: a few system calls that reach no disk. The log waits for nobody.
"""

from __future__ import annotations

import sys

from blockbuster import BlockBuster

from pm.cli.main import main


def guard() -> None:
    for name, function in BlockBuster("pm").functions.items():
        if name.startswith(("io.", "os.")):
            function.can_block_in("pm/linux/host/cgroups.py", "_open_by_id")
            function.can_block_in("pm/log_output.py", "_write").activate()


if __name__ == "__main__":
    guard()
    sys.exit(main())
